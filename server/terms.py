"""On which terms a site is let in: by the server's consortium file, with as many examples as agreed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from logging import WARNING

from flwr.common import log

from reconsent.agreement import shared_parts
from reconsent.config import ConsortiumConfig
from server.persistence.ledger_entries import RefusalKind
from strategies import messages as msg
from strategies.replies import readable

OTHER_FILE = "its consortium file is not the server's"
"""How the reason begins of a refusal that ends when the file is mended."""


@dataclass(frozen=True, slots=True)
class TermsBroken:
    """Why a site is not let in.

    Attributes
    ----------
    kind, parts
        As in the ledger.
    text
        In words, with what to do.
    """

    kind: RefusalKind
    text: str
    parts: tuple[str, ...] = ()


def broken_terms(
    consortium: ConsortiumConfig, site: str, told: Mapping[str, int | float | str | bool], examples: int
) -> TermsBroken | None:
    """What keeps ``site`` from taking part, by what it said of itself; ``None`` if nothing does.

    What it does not tell is not compared: an older release, or an app of another kind, has no digests. This
    finds mistakes; a site that lies has the server's digests from the common file.

    Parameters
    ----------
    consortium
        The server's.
    site
        One of its sites.
    told
        The site's answer to who it is.
    examples
        Training examples that it says it has.
    """
    name = readable(str(told.get(msg.CONSORTIUM, consortium.name)))
    parts = shared_parts(consortium, site)
    compared = {part: told[msg.SHARED + part] for part in parts if msg.SHARED + part in told}
    if len(compared) < len(parts):
        log(WARNING, "handshake: site %s tells nothing of its consortium file", site)
    differing = tuple(sorted(part for part, digest in compared.items() if digest != parts[part]))
    if name != consortium.name or differing:
        wrong = [f"it is of consortium '{name}', not '{consortium.name}'"] if name != consortium.name else []
        wrong += [f"{_PLACES[part]} differs" for part in differing]
        where = ("name", *differing) if name != consortium.name else differing
        return TermsBroken(
            "consortium",
            f"{OTHER_FILE}: {'; '.join(wrong)}. Give site '{site}' a copy of the server's file",
            where,
        )
    own = consortium.site(site).max_examples
    most, option = consortium.screening.max_examples, "screening.max-examples"
    if own is not None:
        most, option = own, f"max-examples of site '{site}'"
    if examples > most:
        told_of = f"it says it has {examples:.6g} training examples, and {most} are allowed ({option})"
        return TermsBroken("examples", told_of)
    return None


_PLACES: Mapping[str, str] = {
    "seed": "seed",
    "model": "[model]",
    "training": "what [training] says of a site's own work",
    "sampling": "the site's sampling",
    "privacy": "its differential privacy",
}
