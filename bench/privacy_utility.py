"""Accuracy and forgetting against ε: the same consortium trained under DP-SGD with more and more noise.

    python -m bench.privacy_utility                                 # the small consortium beside this file
    python -m bench.privacy_utility --preset demo --seeds 0 1 2     # the default consortium: hours
    python -m bench.privacy_utility --page docs/privacy-utility.md  # write the tables of the page again

For each ε and seed: G and its oracle are trained, then the site that leaves is unlearned from G by each
method, and everything is measured with everybody's data. One JSON file each in ``--out``; what is there
already is not done again, and an interrupted training goes on where it was, in ``--root``. Every ε is that of
a patient, after the training and one unlearning, by Opacus' accountant; ∞ is training without any of it.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.privacy_page import tables, write_tables
from cli.assessment import default_workers
from cli.run_directory import RunDirectory
from cli.trials import TrainedConsortium, leaving, trained
from client.privacy.accounting import Mechanism, epsilon_spent
from client.privacy.ledger import PrivacyLedger
from reconsent.config import ConsortiumConfig, load_consortium
from reconsent.errors import ContributionError
from reconsent.files import write_atomically
from server.bookkeeping import MAIN
from strategies import messages as msg
from strategies.site_privacy import planned_rounds
from unlearning.ascent import ascend, unit, weighted_contribution
from unlearning.parameters import ParameterLayout

EPSILONS = (math.inf, 20.0, 8.0, 3.0, 1.0)
METHODS: dict[str, dict[str, Any]] = {
    "cached-ascent": {},
    # The same rounds and learning rates without the ascent: what the cached contributions add.
    "retain-ft": {"rate": 1.5, "final-rate": 0.25},
}
SMALL = Path(__file__).with_name("privacy_utility.toml")
RANDOM = 3
"""Random directions that the cached one is compared with."""


def configured(
    preset: str,
    epsilon: float,
    seed: int,
    *,
    sample_rate: float | None,
    max_grad_norm: float,
    learning_rate: float | None,
    rounds: int | None,
) -> ConsortiumConfig:
    """The consortium of ``preset`` with ε after all its rounds; without privacy if ε is infinite."""
    table = load_consortium(preset).model_dump(mode="json", by_alias=True, exclude_none=True)
    table["seed"] = seed
    if rounds is not None:
        table["training"]["rounds"] = rounds
    if math.isfinite(epsilon):
        if learning_rate is not None:
            table["training"]["learning-rate"] = learning_rate
        table["privacy"] = {
            "mode": "sample",
            "unit": "patient",
            "target-epsilon": epsilon,
            "max-grad-norm": max_grad_norm,
            # Several methods are tried from one G, each of which spends; a consortium would use one of them.
            "ceiling": 1e6,
        }
        if sample_rate is not None:
            table["privacy"]["sample-rate"] = sample_rate
    return ConsortiumConfig.model_validate(table)


def run(config: ConsortiumConfig, epsilon: float, root: Path, *, workers: int) -> dict[str, Any]:
    """Train, unlearn by each method, and measure."""
    began = time.time()
    with trained(root, config, workers=workers) as consortium:
        found: dict[str, Any] = {
            "epsilon": epsilon if math.isfinite(epsilon) else "inf",
            "seed": config.seed,
            "consortium": config.name,
            "training": config.training.model_dump(mode="json"),
            "privacy": config.privacy.model_dump(mode="json", exclude_none=True),
            "spent": spent(config, RunDirectory(root)),
            "original": asdict(consortium.original),
            "oracle": asdict(consortium.oracle),
            "direction": direction(consortium),
            "attempts": {},
        }
        for method, settings in METHODS.items():
            try:
                attempt = asdict(consortium.attempt(method, settings))
                found["attempts"][method] = {"settings": settings, **attempt}
            except ContributionError as error:
                # That a method found no step the remaining sites could bear is a result, too.
                found["attempts"][method] = {"settings": settings, "failed": error.problem}
    found["seconds"] = round(time.time() - began, 1)
    return found


def spent(config: ConsortiumConfig, directory: RunDirectory) -> dict[str, dict[str, float]]:
    """Of each site that stays: what its ledger says of the training, and ε with one unlearning after it."""
    if not config.privacy.by_sample:
        return {}
    result = {}
    for site in config.sites:
        if site.name in leaving(config):
            continue
        paid = PrivacyLedger(directory.privacy / f"{config.name}--{site.name}.jsonl").expenses()
        training = [e for e in paid if e.round <= config.training.rounds]
        one = Mechanism(training[0].noise_multiplier, training[0].sample_rate, training[0].steps)
        assert len(training) == config.training.rounds  # noqa: S101 - each round was paid for, once
        whole = planned_rounds(config, config.privacy) * one.steps
        delta, accountant = config.privacy.delta, config.privacy.accountant
        result[site.name] = {
            "noise_multiplier": one.noise_multiplier,
            "sample_rate": one.sample_rate,
            "steps": whole,
            "epsilon_training": epsilon_spent([one] * len(training), delta, accountant),
            "epsilon": epsilon_spent(
                [Mechanism(one.noise_multiplier, one.sample_rate, whole)], delta, accountant
            ),
            "epsilon_prv": epsilon_spent(
                [Mechanism(one.noise_multiplier, one.sample_rate, whole)], delta, "prv"
            ),
        }
    return result


def direction(consortium: TrainedConsortium, length: float = 1.85) -> dict[str, Any]:
    """What one step of ``length`` R from G does along the cached contribution, and along random directions.

    Returns
    -------
    ``cached``, ``random`` (mean of some): change in dB on ``forget_train``, ``forget_test``, ``retain_test``;
    ``step``: its length; ``cosine_of_halves``: between what the leavers sent in odd and in even rounds.
    """
    c, left = consortium.coordinator, set(consortium.left)
    named = msg.named_arrays(c.books.arrays(c.books.version(MAIN, "train")))
    layout = ParameterLayout.of(named)
    start = layout.flatten(named)
    cached = unit(weighted_contribution(c.cache, left, kind="specific"))
    size = length * float(np.mean([np.median(c.cache.norms(site)[-10:]) for site in left]))
    rng = np.random.default_rng(c.consortium.seed)
    ways = {"cached": [cached], "random": []}
    for _ in range(RANDOM):
        ways["random"].append(unit(rng.standard_normal(start.size).astype(np.float32)))
    before = consortium.original.psnr
    found: dict[str, Any] = {"step": size, "cosine_of_halves": _cosine_of_halves(consortium)}
    for name, vectors in ways.items():
        after = [
            consortium.accuracy(msg.array_record(layout.unflatten(ascend(start, vector, size), named)))
            for vector in vectors
        ]
        found[name] = {key: float(np.mean([psnr[key] for psnr in after])) - before[key] for key in before}
    return found


def _cosine_of_halves(consortium: TrainedConsortium) -> float | None:
    """Of the leavers' updates in odd and in even rounds, summed: 1 if all agree, 0 if they are noise."""
    cache = consortium.coordinator.cache
    sums: list[Any] = [0.0, 0.0]
    for site in consortium.left:
        for round_, _, update in cache.updates(site):
            sums[round_ % 2] = sums[round_ % 2] + update
    if any(isinstance(part, float) for part in sums):
        return None  # The single updates were not kept.
    odd, even = (unit(part) for part in sums)
    return float(odd @ even)


def results_of(consortium: str) -> Path:
    """Where the results of a consortium go: one directory each, since only within one they compare."""
    own = consortium.replace("-", "_")
    return Path("bench/results") / (own if own == "privacy_utility" else f"privacy_utility_{own}")


def _share_phantoms(first: Path, other: Path) -> None:
    """The phantoms depend on the seed alone: they are made once, and read anew by whoever finds them."""
    if (first / "data").is_dir() and not other.exists():
        shutil.copytree(first / "data", other / "data")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default=str(SMALL), help="a preset, or a consortium file")
    parser.add_argument("--epsilons", type=float, nargs="+", default=list(EPSILONS), help="inf: no privacy")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rounds", type=int, help="training rounds; as in the file by default")
    parser.add_argument("--sample-rate", type=float, default=0.5, help="chance of a patient to be in a step")
    parser.add_argument("--max-grad-norm", type=float, default=0.05)
    parser.add_argument("--learning-rate", type=float, help="with privacy; as in the file by default")
    parser.add_argument("--root", type=Path, default=Path("runs/privacy-utility"), help="where it trains")
    parser.add_argument("--out", type=Path, help="default: a directory of the consortium in bench/results")
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument(
        "--page", type=Path, help="write the tables of this page from the files, and do nothing else"
    )
    args = parser.parse_args(arguments)
    config = load_consortium(args.preset)
    out = args.out or results_of(config.name)
    if args.page:
        for name in [config.name] if args.out else [load_consortium(p).name for p in (str(SMALL), "demo")]:
            write_tables(args.page, name, tables(args.out or results_of(name)))
        return
    for seed in args.seeds:
        for epsilon in args.epsilons:
            config = configured(
                args.preset,
                epsilon,
                seed,
                sample_rate=args.sample_rate,
                max_grad_norm=args.max_grad_norm,
                learning_rate=args.learning_rate,
                rounds=args.rounds,
            )
            name = f"{config.name}-{epsilon:g}-{seed}"
            file = out / f"{name}.json"
            if file.exists():
                print(f"{file} is there", flush=True)
                continue
            _share_phantoms(args.root / f"{config.name}-{args.epsilons[0]:g}-{seed}", args.root / name)
            found = run(config, epsilon, args.root / name, workers=args.workers)
            write_atomically(file, (json.dumps(found, indent=1) + "\n").encode())
            print(f"{file}: {found['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
