"""A site that hangs, is slow, or answers nonsense: the round ends with the others and says who and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict

from reconsent.errors import RoundError
from server.bookkeeping import MAIN
from server.persistence import RunEvents
from server.service import Service, Task, recording
from server.status import status_of
from strategies import messages as msg
from strategies.local_grid import LocalGrid
from tests.linear_app import hospital_app
from tests.server.hospitals import SITES, Run, centres, consortium, grid, opened

Spoiler = Callable[[Message], Message | None]

DELTA = 4


class Spoiled(LocalGrid):
    """Replaces what the last site answers; ``None`` for no answer yet."""

    def __init__(self, spoil: Spoiler, kind: str = msg.TRAIN) -> None:
        configs = {n: {"site": site, "examples": n} for n, site in enumerate(SITES, start=1)}
        super().__init__(hospital_app(centres()), configs)
        self._spoil = spoil
        self._kind = kind

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Spoil the replies of the kind."""
        found = []
        for identifier in list(message_ids):
            asked, node_id = self._replies.get(identifier, (None, 0))  # type: ignore[misc]
            for reply in super().pull_messages([identifier]):
                if node_id != DELTA or reply.metadata.message_type != self._kind:
                    found.append(reply)
                elif (spoiled := self._spoil(reply)) is not None:
                    found.append(spoiled)
                else:
                    self._replies[identifier] = asked, node_id  # type: ignore[assignment]
        return found


def with_arrays(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Spoiler:
    """A reply whose arrays are others."""

    def spoil(reply: Message) -> Message:
        arrays = change(dict(msg.named_arrays(msg.arrays_of(reply))))  # type: ignore[arg-type]
        reply.content[msg.ARRAYS] = msg.array_record(arrays)
        return reply

    return spoil


def with_metrics(**told: Any) -> Spoiler:
    """A reply whose metrics are others."""

    def spoil(reply: Message) -> Message:
        metrics = dict(reply.content.metric_records[msg.METRICS])
        reply.content[msg.METRICS] = MetricRecord(
            metrics | {key.replace("_", "-"): value for key, value in told.items()}
        )
        return reply

    return spoil


def without_metrics(reply: Message) -> Message:
    """Strings where numbers are expected."""
    del reply.content[msg.METRICS]
    reply.content[msg.METRICS] = ConfigRecord({msg.NUM_EXAMPLES: "many", msg.SECONDS: "few"})
    return reply


def two_models(reply: Message) -> Message:
    reply.content["another"] = msg.array_record({"theta": np.zeros(3, np.float32)})
    return reply


def novel(reply: Message) -> Message:
    spoiled = Message(RecordDict(), DELTA, msg.TRAIN)
    spoiled.metadata.__dict__.update(reply.metadata.__dict__)
    return Message(Error(code=2, reason="a\x00b\n" + "x" * 100_000), reply_to=spoiled)


REFUSED: dict[str, tuple[Spoiler, str]] = {
    "nan": (with_arrays(lambda a: a | {"theta": a["theta"] * np.nan}), "not finite"),
    "infinite": (with_arrays(lambda a: a | {"theta": a["theta"] + np.inf}), "not finite"),
    "shape": (with_arrays(lambda a: a | {"theta": a["theta"][:-1]}), "theta"),
    "dtype": (with_arrays(lambda a: a | {"theta": a["theta"].astype(np.float64)}), "theta"),
    "foreign": (with_arrays(lambda _: {"weights": np.zeros(3, np.float32)}), ""),
    "empty": (with_arrays(lambda _: {}), ""),
    "huge": (with_arrays(lambda a: a | {"theta": a["theta"] + np.float32(1e6)}), "exceeds the limit"),
    "two models": (two_models, "exactly one model"),
    "no examples": (with_metrics(num_examples=0), "num-examples"),
    "half an example": (with_metrics(num_examples=1.5), "num-examples"),
    "negative": (with_metrics(num_examples=-3), "num-examples"),
    "10^300 examples": (with_metrics(num_examples=1e300), "num-examples"),
    "a list": (with_metrics(num_examples=[3, 4]), "num-examples"),
    "strings": (without_metrics, "num-examples"),
}

CONFIG = consortium(training={"evaluate-every": 0, "timeout-seconds": 20})


def train(run: Run, rounds: int = 2) -> None:
    Service(run.coordinator).carry_out(Task("train", rounds))


@pytest.mark.parametrize("fault", REFUSED)
def test_nonsense_is_refused_by_name(fault: str, tmp_path: Path) -> None:
    """Whatever is wrong with a reply, it is refused with its reason, and the others make the round."""
    spoil, words = REFUSED[fault]
    with opened(tmp_path, CONFIG, Spoiled(spoil), simulated=False) as run:
        train(run, 1)
        (record,) = run.books.log.all(MAIN)
        assert record.sites["delta"].outcome == "refused"
        assert words in record.sites["delta"].reason
        assert record.sites["delta"].reason
        assert {s for s, o in record.sites.items() if o.outcome == "ok"} == {"alpha", "beta", "gamma"}
        assert "delta" not in run.books.version(MAIN).lineage
        assert any("delta: refused" in text for text in run.texts("round"))
        clean = run.theta()
    with opened(tmp_path / "without", CONFIG, Spoiled(lambda _: None), simulated=False) as run:
        hasty = CONFIG.training.model_copy(update={"timeout_seconds": 0.2})
        run.coordinator.consortium = CONFIG.model_copy(update={"training": hasty})
        train(run, 1)
        assert run.theta().tobytes() == clean.tobytes(), "as if it had not answered"


def test_the_file_says_what_is_huge(tmp_path: Path) -> None:
    """By `first-norm-ratio` a consortium whose honest sites differ more than a hundredfold can train."""
    spoil, _ = REFUSED["huge"]
    config = consortium(training={"evaluate-every": 0}, screening={"first-norm-ratio": 1e12})
    with opened(tmp_path, config, Spoiled(spoil), simulated=False) as run:
        train(run, 1)
        (record,) = run.books.log.all(MAIN)
        assert {outcome.outcome for outcome in record.sites.values()} == {"ok"}


@pytest.mark.parametrize(
    "lie",
    [
        {"seconds": -5.0},
        {"seconds": 1e300},
        {"seconds": float("nan")},
        {"train_loss": float("inf")},
        {"train_loss": 1e308},
        {"train_loss": [1.0, 2.0], "seconds": [1.0]},
        {"psnr": float("nan"), "something-else": 1e308},
    ],
)
def test_lies_beside_a_good_update_do_no_harm(lie: dict[str, Any], tmp_path: Path) -> None:
    """An acceptable update counts; what is told besides is noted where it makes sense, else left out."""
    with opened(tmp_path, CONFIG, Spoiled(with_metrics(**lie)), simulated=False) as run:
        state = run.coordinator.state
        with recording(state, "1", Task("train", 2)):
            train(run)
        for record in run.books.log.all(MAIN):
            assert record.sites["delta"].outcome == "ok"
        cost = run.books.log.cost(MAIN, ["train"])
        assert 0 <= cost.client_seconds < 10
        assert [e.kind for e in RunEvents(state).after(0)] == ["stage", "round", "round", "done"]


def test_a_novel_as_an_error(tmp_path: Path) -> None:
    """An error with control characters and a hundred thousand letters is noted, cut and readable."""
    with opened(tmp_path, CONFIG, Spoiled(novel), simulated=False) as run:
        train(run, 1)
        (record,) = run.books.log.all(MAIN)
        told = record.sites["delta"]
        assert told.outcome == "failed"
        assert "a b x" in told.reason
        assert len(told.reason) < 1100


@pytest.mark.parametrize("kind", [msg.TRAIN, msg.EVALUATE])
def test_a_site_that_hangs(kind: str, tmp_path: Path) -> None:
    """A site without an answer costs its timeout, not more; the round is made by the others."""
    config = consortium(training={"evaluate-every": 1, "timeout-seconds": 0.5})
    with opened(tmp_path, config, Spoiled(lambda _: None, kind), simulated=False) as run:
        began = time.monotonic()
        train(run, 2)
        assert time.monotonic() - began > 0.5
        for record in run.books.log.all(MAIN):
            hung = kind == msg.TRAIN
            assert record.sites["delta"].outcome == ("timeout" if hung else "ok")
            assert ("no answer within 0.5 s" in record.sites["delta"].reason) == hung
        measured = set(run.books.log.all(MAIN)[-1].metrics["evaluation"])
        assert measured == set(SITES) - (set() if kind == msg.TRAIN else {"delta"})


def test_a_slow_site_is_waited_for(tmp_path: Path) -> None:
    """A site that answers within its time takes part, however much faster the others are."""
    began: list[float] = []

    def slow(reply: Message) -> Message | None:
        began.append(time.monotonic())
        return reply if began[-1] - began[0] > 0.5 else None

    with opened(tmp_path, CONFIG, Spoiled(slow), simulated=False) as run:
        train(run, 1)
        (record,) = run.books.log.all(MAIN)
        assert {o.outcome for o in record.sites.values()} == {"ok"}
        assert record.seconds > 0.5


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({msg.ORGAN: "x" * 10_000}, "10"),
        ({msg.NUM_EXAMPLES: 2**60}, "1000000 are allowed (screening.max-examples)"),
        ({msg.NUM_EXAMPLES: 1_000_001}, "1000000 are allowed (screening.max-examples)"),
        ({msg.NUM_EXAMPLES: -1}, "whole number"),
        ({msg.SITE: "del\x00ta"}, "'del ta', which is not expected"),
    ],
)
def test_nonsense_about_oneself(told: dict[str, Any], words: str, tmp_path: Path) -> None:
    """A site that says nonsense of itself is not let in, and the run's events say why."""

    def spoil(reply: Message) -> Message:
        config = msg.config_of(reply)
        reply.content[msg.CONFIG] = ConfigRecord(config | told)
        return reply

    with opened(tmp_path, CONFIG, Spoiled(spoil, msg.IDENTIFY), simulated=False) as run:
        train(run, 1)
        assert DELTA not in run.coordinator.active_nodes()
        assert any(words in text and "\x00" not in text for text in run.texts("notice"))


@pytest.mark.parametrize("first", ["delta", "alone"])
def test_nonsense_as_the_initial_model(first: str, tmp_path: Path) -> None:
    """A site that builds no finite model is passed over for the next; without one, the error says why."""
    nodes = Spoiled(with_arrays(lambda a: a | {"theta": a["theta"] * np.nan}), msg.INITIALISE)
    if first == "alone":
        nodes._nodes = {DELTA: nodes._nodes[DELTA]}
    else:
        config = {n: dict(c) for n, c in nodes._nodes.items()}
        nodes._nodes = config | {DELTA: config[1], 1: config[DELTA]}  # It is "alpha" that is asked first.
    with opened(tmp_path, CONFIG, nodes, simulated=False) as run:
        if first == "alone":
            with pytest.raises(RoundError, match=r"No site could build .* not finite"):
                train(run, 1)
        else:
            train(run, 1)
            assert any("'alpha' could not build" in text for text in run.texts("notice"))
            assert np.isfinite(run.theta()).all()


def test_a_site_cannot_raise_its_weight(tmp_path: Path) -> None:
    """Who claims more examples than it enrolled with is weighed with those, and the run's events say so."""
    with opened(tmp_path / "honest", consortium(), simulated=False) as run:
        train(run, 1)
        honest = run.theta()
    nodes = Spoiled(with_metrics(**{msg.NUM_EXAMPLES: 10**9}))
    with opened(tmp_path / "liar", consortium(), nodes, simulated=False) as run:
        train(run, 1)
        (record,) = run.books.log.all(MAIN)
        assert (record.sites["delta"].outcome, record.sites["delta"].num_examples) == ("ok", DELTA)
        assert any("delta: ok (claims 1e+09 examples, enrolled with 4" in t for t in run.texts("round"))
        np.testing.assert_array_equal(run.theta(), honest)


def test_a_site_that_enrols_with_more(tmp_path: Path) -> None:
    """More examples than in an earlier run are accepted, but never silently."""
    for examples, announced in ((4, False), (400, True), (400, False)):
        with opened(tmp_path, consortium(), grid(delta={"examples": examples}), simulated=False) as run:
            train(run, 1)
            assert any("delta enrols with 400" in text for text in run.texts("notice")) is announced


def test_a_site_without_training_data_cannot_claim_any(tmp_path: Path) -> None:
    """A reply of a site that enrolled with nothing is refused."""
    with opened(tmp_path, consortium(), grid(delta={"counts": 0}), simulated=False) as run:
        train(run, 1)
        (record,) = run.books.log.all(MAIN)
        assert record.sites["delta"].outcome == "refused"
        assert "which is none" in record.sites["delta"].reason


def test_a_site_that_refuses_says_nothing_of_the_model(tmp_path: Path) -> None:
    """Refusals by a site's policy are counted and named, and take no step of an ascent back."""

    def refuse(reply: Message) -> Message:
        told = Error(6, "refused-by-site: not-allowed: This site does not let models be evaluated.")
        return Message(told, reply_to=reply)

    config = consortium(training={"evaluate-every": 0}, unlearning={"settings": {"alpha": 0.1}})
    taken = {}
    for name, nodes in {"open": grid(), "refusing": Spoiled(refuse, msg.EVALUATE)}.items():
        with opened(tmp_path / name, config, nodes, simulated=False) as run:
            train(run, 3)
            run.coordinator.withdraw(["alpha"])
            taken[name] = [r.metrics["accepted"] for r in run.books.log.all(MAIN) if r.kind == "retain"]
    assert taken["refusing"] == taken["open"] and all(taken["open"])
    nodes = Spoiled(refuse)
    with opened(tmp_path / "training", config, nodes, simulated=False) as run:
        train(run, 2)
        assert {r.sites["delta"].outcome for r in run.books.log.all(MAIN)} == {"refused"}
        told = status_of(run.coordinator.state, config)
        assert told["refusals"]["delta"] == {
            "count": 2,
            "last": "not-allowed: This site does not let models be evaluated.",
        }
