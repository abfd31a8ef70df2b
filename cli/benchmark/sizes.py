"""How large a benchmark's consortia are."""

from __future__ import annotations

from cli.benchmark.plan import Case
from mri.reconstructors import build_reconstructor
from mri.split import Split, split_patients
from reconsent.config import ConsortiumConfig, SiteConfig


def training_slices(site: SiteConfig) -> int | None:
    """Slices that a site with phantoms trains on; ``None`` with data of its own."""
    split = _split(site)
    return None if split is None else len(split.train) * site.phantom.slices


def remaining_share(case: Case) -> float:
    """Slices that are trained on without the leaver, over all; 1 if they are not known."""
    counts = {site.name: training_slices(site) for site in case.consortium.sites}
    known = {name: count for name, count in counts.items() if count is not None}
    if len(known) < len(counts):
        return 1.0
    return 1 - known[case.withdrawn] / sum(known.values())


def sizes(consortium: ConsortiumConfig) -> str:
    """A table of the sites, and a sentence about network and training, in Markdown."""
    training = consortium.training
    passes = f"{training.local_epochs} pass{'es' * (training.local_epochs > 1)} over each site's slices"
    if training.local_steps:
        passes = f"{training.local_steps} steps at each site"
    network = build_reconstructor(consortium.model, seed=0)
    count = sum(parameter.numel() for parameter in network.parameters())
    lines = [
        f"`{consortium.name}`: {consortium.model.name} with {count:,} parameters; {training.rounds} rounds "
        f"of {passes}, batches of {training.batch_size}; unlearning in "
        f"{100 * consortium.unlearning.rounds_fraction:g} % of the rounds.",
        "",
        "| site | organ | matrix | coils | slices to train | slices to test | sampling |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for site in consortium.sites:
        split, made, sampling = _split(site), site.phantom, site.sampling
        seen = (
            "its own | | |"
            if split is None
            else f"{made.matrix[0]} × {made.matrix[1]} | {made.coils} | {len(split.train) * made.slices} | "
            f"{len(split.test) * made.slices}"
        )
        lines.append(
            f"| {site.name} | {site.organ} | {seen} | {sampling.acceleration}-fold, "
            f"{100 * sampling.center_fraction:g} % central |"
        )
    return "\n".join(lines)


def _split(site: SiteConfig) -> Split | None:
    if site.data is not None:
        return None
    # Whoever is drawn to test, there are as many.
    patients = [str(number) for number in range(site.phantom.patients)]
    return split_patients(patients, test_fraction=site.test_fraction, seed=0)
