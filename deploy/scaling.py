"""A consortium of another size: the first sites of a given one, or more of the same kind."""

from __future__ import annotations

from reconsent.config import ConsortiumConfig
from reconsent.errors import ConfigError


def with_sites(config: ConsortiumConfig, count: int) -> ConsortiumConfig:
    """The same consortium with ``count`` sites.

    Fewer: the first ones. More: they are repeated as ``NAME-2``, ``NAME-3``…, each with phantoms of its own,
    since these follow from the name. Withdrawals of sites that are no longer there are left out, and so are
    withdrawals of everybody.

    Raises
    ------
    ConfigError
        If there are fewer than two, or sites with data of their own would have to be repeated.
    """
    if count < 2:
        raise ConfigError(
            f"A consortium has two sites or more, not {count}.", "Give a larger number with --sites."
        )
    own = [site.name for site in config.sites if site.data is not None]
    if own and count > len(config.sites):
        raise ConfigError(
            f"The consortium has {len(config.sites)} sites, not {count}, and {', '.join(own)} brings data of "
            "its own, which cannot be repeated.",
            "Describe the further sites in the consortium file.",
        )
    sites = list(config.sites[:count])
    taken = {site.name for site in config.sites}
    turn = 2
    while len(sites) < count:
        for site in config.sites[: count - len(sites)]:
            name = f"{site.name}-{turn}"
            if name not in taken:
                taken.add(name)
                sites.append(site.model_copy(update={"name": name}))
        turn += 1
    names = {site.name for site in sites}
    kept = tuple(w for w in config.withdrawals if set(w.sites) < names)
    if len({name for withdrawal in kept for name in withdrawal.sites}) >= count:
        kept = ()
    return config.model_copy(update={"sites": tuple(sites), "withdrawals": kept})
