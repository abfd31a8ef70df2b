"""Try settings of unlearning methods on consortia that were trained once.

    python -m bench.method_search prepare --root /tmp/search --seeds 0 1 2
    python -m bench.method_search try --root /tmp/search --seeds 0 --method cached-ascent alpha=2.5 guard=none
    python -m bench.method_search try --root /tmp/search --file bench/method_search.txt

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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cli.assessment import default_workers
from cli.simulate import _value
from cli.simulation import RunDirectory, prepare_data
from reconsent.config import load_consortium

WORKERS = default_workers()


@contextmanager
def coordinator(root: Path, seed: int, preset: str) -> Iterator[Any]:
    """A coordinator on the state of one seed, on a local grid of worker processes."""
    from server.coordinator import Coordinator
    from server.persistence import StateDirectory
    from strategies.local_grid import LocalGrid

    config = load_consortium(preset).model_copy(update={"seed": seed})
    directory = RunDirectory(root / f"{config.name}-{seed}")
    directory.prepare(config)
    directory.set_environment()
    prepare_data(config, lambda *_: None)
    nodes = {index + 1: {"partition-id": index} for index in range(len(config.sites))}
    grid = LocalGrid("client.app:app", nodes, workers=WORKERS)
    with StateDirectory.open(directory.state) as state:
        yield Coordinator(grid, config, state, simulated=True), directory
    grid.close()


def prepare(root: Path, seed: int, preset: str) -> None:
    """Train G and the oracle."""
    with coordinator(root, seed, preset) as (coordinator_, _):
        leaving = {site for w in coordinator_.consortium.withdrawals for site in w.sites}
        rounds = coordinator_.consortium.training.rounds
        began = time.time()
        coordinator_.meet()
        coordinator_.initialise(leaving)
        coordinator_.train(rounds)
        print(f"seed {seed}: trained in {time.time() - began:.0f} s", flush=True)
        coordinator_.retrain_oracle(leaving, rounds)
        print(f"seed {seed}: oracle in {time.time() - began:.0f} s", flush=True)


def trials(
    root: Path, seed: int, preset: str, wanted: Sequence[tuple[str, Mapping[str, Any]]]
) -> Iterator[dict[str, Any]]:
    """Unlearn by each method and settings in turn, and measure."""
    from cli.assessment import Observer

    with (
        coordinator(root, seed, preset) as (c, directory),
        Observer(directory.consortium, c.books.registry, workers=WORKERS) as observer,
    ):
        c.meet()
        left = sorted({site for w in c.consortium.withdrawals for site in w.sites})
        baseline = _baseline(observer, c, left, directory.path / "baseline.json")
        for method, settings in wanted:
            arrays, notes, seconds = _unlearn(c, frozenset(left), method, settings)
            ours = _figures(observer, c, left, arrays)
            yield {
                "seed": seed,
                "method": method,
                "settings": dict(settings),
                "gaps": {k: ours[k] - baseline["oracle"][k] for k in ours},
                "original": {k: v - baseline["oracle"][k] for k, v in baseline["original"].items()},
                "oracle": baseline["oracle"],
                "notes": notes,
                "seconds": seconds,
            }


def _unlearn(
    c: Any, left: frozenset[str], method: str, settings: Mapping[str, Any]
) -> tuple[Any, list[dict[str, Any]], float]:
    strategy = c.method(left, c.consortium.training.rounds, method, settings)
    began = time.time()
    arrays = strategy.begin(c.grid, c.books.arrays(c.books.version("main", "train")))
    notes: list[dict[str, Any]] = []
    first = c.books.log.last_round("main") + 1  # the same batches as in a real run
    for outcome in strategy.rounds(c.grid, arrays, strategy.num_rounds, first_round=first):
        arrays = outcome.arrays
        notes.append({"accepted": outcome.accepted, **outcome.notes})
    return strategy.finish(arrays), notes, time.time() - began


def _baseline(observer: Any, c: Any, left: list[str], path: Path) -> dict[str, dict[str, float]]:
    if path.exists():
        return json.loads(path.read_text())
    books = c.books
    found = {
        "original": _figures(observer, c, left, books.arrays(books.version("main", "train"))),
        "oracle": _figures(observer, c, left, books.arrays(books.version("oracle"))),
    }
    path.write_text(json.dumps(found))
    return found


def _figures(observer: Any, c: Any, left: list[str], arrays: Any) -> dict[str, float]:
    from strategies import messages as msg

    named = {"m": msg.named_arrays(arrays)}
    splits = [(s.name, "test") for s in c.consortium.sites] + [(site, "train") for site in left]
    rows = observer.quality([("m", named["m"], site, split) for site, split in splits], lambda: None)
    figures = {
        "retain_test": np.mean([r.psnr for r in rows if r.split == "test" and r.site not in left]),
        "forget_test": np.mean([r.psnr for r in rows if r.split == "test" and r.site in left]),
        "forget_train": np.mean([r.psnr for r in rows if r.split == "train"]),
    }
    curve = observer.relearn(named, left, lambda: None)["m"]
    return {k: float(v) for k, v in figures.items()} | {str(k): float(v) for k, v in curve.items()}


def show(result: Mapping[str, Any]) -> None:
    """One line: gaps in dB."""
    gaps = " ".join(
        f"{key}{value:+.2f}" for key, value in zip("RFT", list(result["gaps"].values())[:3], strict=True)
    )
    relearn = " ".join(f"{value:+.2f}" for value in list(result["gaps"].values())[3:])
    settings = " ".join(f"{key}={value}" for key, value in result["settings"].items())
    back = sum(not note["accepted"] for note in result["notes"])
    cost = f"{back} back, {result['seconds']:.0f} s"
    print(f"{result['seed']} {result['method']:14} {gaps} | {relearn} | {cost} | {settings}", flush=True)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["prepare", "try"])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--method", default="cached-ascent")
    parser.add_argument("--file", type=Path, help="a method and its settings a line")
    parser.add_argument("settings", nargs="*")
    args = parser.parse_intermixed_args()
    lines = [[args.method, *args.settings]]
    if args.file:
        lines = [
            line.split() for line in args.file.read_text().splitlines() if line.strip() and line[0] != "#"
        ]
    for seed in args.seeds:
        if args.command == "prepare":
            prepare(args.root, seed, args.preset)
            continue
        wanted = [(m, {k: _value(v) for k, v in (pair.split("=") for pair in pairs)}) for m, *pairs in lines]
        for result in trials(args.root, seed, args.preset, wanted):
            show(result)
            with (args.root / "trials.jsonl").open("a") as file:
                file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
