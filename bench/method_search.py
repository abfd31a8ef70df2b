"""Try settings of unlearning methods on consortia that were trained once.

    python -m bench.method_search prepare --root /tmp/search --seeds 0 1 2
    python -m bench.method_search try --root /tmp/search --seeds 0 --method cached-ascent alpha=2.5 guard=none
    python -m bench.method_search try --root /tmp/search --file trials.txt
    python -m bench.method_search prepare --root /tmp/search --preset consortium.toml --withdraw heart
    python -m bench.method_search try --root /tmp/search --withdraw knee --patients leaving.txt --method nl-ft

``prepare`` trains the consortium and its oracle with each seed and keeps the state with all contributions.
``try`` unlearns from there, without changing that state, and prints the gaps to the oracle: on retain-test,
forget-test and forget-train, then after 4, 8, 16, 32 steps of relearning, then the rounds and the seconds.
Nothing a method is given comes from the withdrawn site's data or from the oracle; only the figures do.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cli.assessment import default_workers
from cli.simulate import pseudonyms_in, setting_value
from cli.trials import Attempt, leaving, staying, trained
from reconsent.config import ConsortiumConfig, WithdrawalConfig, load_consortium

WORKERS = default_workers()


def prepare(root: Path, config: ConsortiumConfig) -> None:
    """Train G and the oracle."""
    began = time.time()
    with trained(_place(root, config), config, workers=WORKERS):
        print(f"seed {config.seed}: trained, with its oracle, in {time.time() - began:.0f} s", flush=True)


def trials(
    root: Path, config: ConsortiumConfig, wanted: Sequence[tuple[str, Mapping[str, Any]]]
) -> Iterator[dict[str, Any]]:
    """Unlearn by each method and settings in turn, and measure."""
    with trained(_place(root, config), config, workers=WORKERS) as consortium:
        for method, settings in wanted:
            attempt = consortium.attempt(method, settings)
            show(config.seed, method, settings, attempt)
            yield {
                "seed": config.seed,
                "method": method,
                "settings": dict(settings),
                "original": asdict(consortium.original),
                "oracle": asdict(consortium.oracle),
                **asdict(attempt),
            }


def show(seed: int, method: str, settings: Mapping[str, Any], attempt: Attempt) -> None:
    """One line: gaps in dB."""
    gaps = " ".join(f"{k}{v:+.2f}" for k, v in zip("RFT", attempt.gaps.values(), strict=True))
    relearn = " ".join(f"{value:+.2f}" for value in attempt.relearn_gaps.values())
    told = " ".join(f"{key}={value}" for key, value in settings.items())
    back = sum(not note["accepted"] for note in attempt.notes)
    print(
        f"{seed} {method:14} {gaps} | {relearn} | {back} back, {attempt.seconds:.0f} s | {told}", flush=True
    )


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["prepare", "try"])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--withdraw", metavar="SITE", help="another site than the consortium file says")
    parser.add_argument("--patients", type=Path, help="a file of the patients who leave; their site stays")
    parser.add_argument("--anchors", type=float, nargs="+", default=[], help="models kept, for a rollback")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--method", default="cached-ascent")
    parser.add_argument("--file", type=Path, help="a method and its settings a line")
    parser.add_argument("settings", nargs="*")
    args = parser.parse_intermixed_args()
    if args.patients and args.withdraw is None:
        parser.error("--patients needs --withdraw: the site that they leave")
    lines = [[args.method, *args.settings]]
    if args.file:
        lines = [
            line.split() for line in args.file.read_text().splitlines() if line.strip() and line[0] != "#"
        ]
    wanted = [
        (method, {k: setting_value(v) for k, v in (pair.split("=") for pair in pairs)})
        for method, *pairs in lines
    ]
    for seed in args.seeds:
        config = load_consortium(args.preset).model_copy(update={"seed": seed})
        if args.withdraw is not None:
            patients = None if args.patients is None else pseudonyms_in(args.patients)
            leaves = WithdrawalConfig(sites=(config.site(args.withdraw).name,), patients=patients)
            config = config.model_copy(update={"withdrawals": (leaves,)})
        if args.anchors:
            kept = config.contributions.model_copy(update={"anchors": tuple(args.anchors)})
            config = config.model_copy(update={"contributions": kept})
        if args.command == "prepare":
            prepare(args.root, config)
            continue
        for result in trials(args.root, config, wanted):
            with (args.root / "trials.jsonl").open("a") as file:
                file.write(json.dumps(result) + "\n")


def _place(root: Path, config: ConsortiumConfig) -> Path:
    some = ["patients"] if staying(config) else []
    return root / "-".join([config.name, str(config.seed), *leaving(config), *some])


if __name__ == "__main__":
    main()
