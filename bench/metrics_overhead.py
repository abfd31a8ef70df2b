"""What metrics and log lines cost, as a share of a round.

    python -m bench.metrics_overhead [--rounds 200] [--out FILE]

A real server trains four quadratic hospitals on a local grid, so that there is a state of so many rounds;
after each round the exporter's collector reads it and encodes the page, as for a scrape. Counted is processor
time, which other work on the machine disturbs little. A scrape comes every 15 s, a verification of the whole
ledger once a day, that of what a round added and log lines with each round. A site's exporter is scraped
after each round, too, with a log of a training and an evaluation a round. The shares, of the server's machine
and of a site's, are what all of it takes in a second, of one core, where a round takes as long as in
``bench/results/round_overhead.json``; since a round keeps at least one core busy, it is the most that metrics
can take of one.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from client.metrics import SiteCollector
from client.site_log import SiteLog
from reconsent.log_lines import FORMAT_VARIABLE, belonging, start_logging
from server.coordinator import Coordinator
from server.metrics import StateCollector
from server.metrics.ledger import WHOLE_SECONDS
from server.persistence import StateDirectory
from server.persistence.verification import verify_ledger
from tests.server import hospitals

SCRAPE_SECONDS = 15.0
ROUND = Path(__file__).parent / "results" / "round_overhead.json"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--out", type=Path, help="a JSON file to write the figures to")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        result = _measured(Path(root), args.rounds) | _at_a_site(Path(root), args.rounds)
    round_seconds = json.loads(ROUND.read_text(encoding="utf-8"))["seconds"]["ours"]
    share = (
        result["scrape_cpu_seconds"] / SCRAPE_SECONDS
        + result["ledger_verification_cpu_seconds"] / WHOLE_SECONDS
        + result["ledger_added_cpu_seconds_a_round"] / round_seconds
        + result["log_lines_cpu_seconds_a_round"] / round_seconds
    )
    at_site = result["site_scrape_cpu_seconds"] / SCRAPE_SECONDS
    result |= {
        "round_seconds": round_seconds,
        "share_of_a_round_percent": round(100 * share, 3),
        "site_share_of_a_round_percent": round(100 * at_site, 3),
    }
    print(json.dumps(result, indent=2))
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")


def _measured(root: Path, rounds: int) -> dict[str, Any]:
    config = hospitals.consortium(training={"rounds": rounds, "evaluate-every": 1})
    said = io.StringIO()
    scrapes: list[float] = []
    with StateDirectory.open(root / "state") as state:
        coordinator = Coordinator(hospitals.grid(), config, state, simulated=True)
        coordinator.meet()
        coordinator.initialise()
        collector = StateCollector(state.path)
        registry = CollectorRegistry()
        registry.register(collector)
        start_logging({FORMAT_VARIABLE: "json"})
        with redirect_stderr(said), belonging(run="1", correlation="R-1"):
            for done in range(1, rounds + 1):
                coordinator.train(done)
                collector.ledger.wait()  # not in this process's time of a scrape
                scrapes.append(_cpu(lambda: generate_latest(registry)))
        verification = _cpu(lambda: verify_ledger(state))
        page = len(generate_latest(registry))
        collector.close()
        cold = StateCollector(state.path)
        first = _cpu(cold.samples)
        cold.close()
    lines = said.getvalue().splitlines()
    logger = logging.getLogger("reconsent")
    with redirect_stderr(io.StringIO()), belonging(run="1", correlation="R-1"):
        one = _cpu(lambda: _write(logger, 1000)) / 1000
    return {
        "rounds": rounds,
        "sites": len(config.sites),
        "page_bytes": page,
        "scrape_cpu_seconds": round(statistics.median(scrapes), 5),
        "first_scrape_cpu_seconds": round(first, 5),
        "ledger_verification_cpu_seconds": round(verification, 5),
        "ledger_added_cpu_seconds_a_round": round(verification / rounds, 6),
        "log_lines_a_round": round(len(lines) / rounds, 1),
        "log_lines_cpu_seconds_a_round": round(one * len(lines) / rounds, 6),
    }


def _at_a_site(root: Path, rounds: int) -> dict[str, Any]:
    log = SiteLog(root / "site.jsonl")
    registry = CollectorRegistry()
    registry.register(SiteCollector("north", log=log.path))
    scrapes: list[float] = []
    for done in range(1, rounds + 1):
        for kind in ("train", "evaluate"):
            entry = {"type": kind, "round": done, "bytes-received": 10**6}
            log.append("received", entry)
            log.append("worked", entry | {"bytes-sent": 10**6, "seconds": 1.0})
        scrapes.append(_cpu(lambda: generate_latest(registry)))
    cold = SiteCollector("north", log=log.path)
    return {
        "site_scrape_cpu_seconds": round(statistics.median(scrapes), 5),
        "site_first_scrape_cpu_seconds": round(_cpu(cold.samples), 5),
    }


def _write(logger: logging.Logger, lines: int) -> None:
    for _ in range(lines):
        logger.info("%s", "words")


def _cpu(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main()
