"""One round of training under differential privacy: pay, then train, then release."""

from __future__ import annotations

from flwr.app import Message

from client.model_digest import model_digest
from client.privacy.budget import PrivacyBudget
from client.privacy.plan import RoundPlan, plan_round
from client.privacy.training import privatise_update, train_privately
from client.site import Site
from client.training import train_locally
from mri.reconstructors import Reconstructor
from reconsent.errors import RoundError
from reconsent.files import sha256_of
from reconsent.privacy import PrivacyConfig
from reconsent.seeds import derive_seed
from strategies import messages as msg
from strategies.noise import noise_source


def private_round(
    site: Site,
    message: Message,
    model: Reconstructor,
    budget: PrivacyBudget,
    *,
    learning_rate: float,
    seed: int,
    simulated: bool,
) -> dict[str, float]:
    """Write the round's expense to the site's ledger, then train ``model`` in place.

    Parameters
    ----------
    site
        Whose data.
    message
        Of the server; its model is already loaded.
    model
        As received; afterwards what may be released.
    budget
        Of the site.
    learning_rate
        Of Adam.
    seed
        Of whatever does not protect anybody.
    simulated
        Take the noise from a seed, so that one seed gives one result. It depends on the model received, so
        that no two releases share their noise.

    Returns
    -------
    What the server is told of the spending.

    Raises
    ------
    BudgetSpentError
        If the round would pass a ceiling; nothing has been done then.
    """
    privacy, told = budget.privacy, msg.config_of(message)
    record = msg.arrays_of(message)
    digest = model_digest(record) if record is not None else ""
    effort = max(1, int(told.get(msg.EFFORT, 1)))
    number = int(told.get(msg.SERVER_ROUND, 0))
    slices = len(site.dataset("train"))
    plan = plan_round(site.consortium, privacy, slices=slices, effort=effort)
    replay = (
        f"{number}:{effort}:{learning_rate!r}:{seed}:{digest}:{_settings(site, plan)}" if simulated else ""
    )
    spent = budget.spend(plan, server_round=number, replay=replay)
    source = noise_source(derive_seed(seed, "privacy", site.name, digest) if simulated else None)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    dataset = site.dataset("train")
    if plan.sample is not None:
        train_privately(
            model,
            dataset,
            site.consortium.training,
            privacy,
            plan.sample,
            learning_rate=learning_rate,
            seed=seed,
            source=source,
        )
    else:
        _train_plainly(site, model, learning_rate, seed, effort)
    if plan.site_noise is not None:
        privatise_update(
            before,
            model,
            clip=privacy.site_clip,
            noise_multiplier=_at_site(privacy, plan.site_noise),
            source=source,
        )
    return budget.metrics(spent)


def _settings(site: Site, plan: RoundPlan) -> str:
    """Digest of what else a simulated result is a function of: with another clip it is another release."""
    privacy, training = site.privacy, site.consortium.training
    clips = (
        privacy.unit,
        privacy.max_grad_norm,
        privacy.slices_per_unit,
        privacy.site_clip,
        privacy.noise_at,
    )
    work = (
        training.local_epochs,
        training.local_steps,
        training.batch_size,
        training.weight_decay,
        training.l1_weight,
        training.gradient_clip,
    )
    return sha256_of(repr((plan, clips, work)).encode())


def _at_site(privacy: PrivacyConfig, noise_multiplier: float) -> float:
    return noise_multiplier if privacy.noise_at == "site" else 0.0


def _train_plainly(site: Site, model: Reconstructor, learning_rate: float, seed: int, effort: int) -> None:
    training = site.consortium.training.times(effort)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        train_locally(model, site.dataset("train"), training, learning_rate=learning_rate, seed=seed)
    except RoundError:
        # That the loss diverged is a fact about the data: the site releases an update of zero, noised.
        model.load_state_dict(start)
