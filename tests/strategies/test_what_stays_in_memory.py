"""A round's models do not wait for the garbage collector: Flower's records refer to themselves."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pytest
from flwr.app import Array, Context, Message
from flwr.clientapp import ClientApp

from strategies import messages as msg
from strategies.averaging import ContributionAveraging
from strategies.local_grid import LocalGrid
from strategies.packing import PackingGrid, packed_records

SITES, NUMBERS = 8, 50_000


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Nothing is collected meanwhile, as where rounds are long and objects few."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def app(*, packs: bool) -> ClientApp:
    """Adds one to the model."""
    made = ClientApp(mods=[packed_records] if packs else [])

    @made.query("identify")
    def identify(message: Message, _context: Context) -> Message:
        return Message(msg.content(config={msg.PACKS: packs}), reply_to=message)

    @made.train()
    def train(message: Message, _context: Context) -> Message:
        record = msg.arrays_of(message)
        assert record is not None
        after = {name: np.add(array, np.float32(1)) for name, array in msg.named_arrays(record).items()}
        metrics = {msg.NUM_EXAMPLES: 1}
        return Message(msg.content(arrays=msg.array_record(after), metrics=metrics), reply_to=message)

    return made


def models() -> int:
    """How many models' bytes are held by Flower's arrays, dead or alive."""
    found = {id(o.data): len(o.data) for o in gc.get_objects() if isinstance(o, Array)}
    return round(sum(found.values()) / (4 * NUMBERS))


def test_who_answers_with_what_was_sent_spoils_nothing() -> None:
    """An app in the same process may hand back the very record; the model and the other sites' stay whole."""
    echo = ClientApp()

    @echo.train()
    def train(message: Message, _context: Context) -> Message:
        content = msg.content(arrays=msg.arrays_of(message), metrics={msg.NUM_EXAMPLES: 1})
        return Message(content, reply_to=message)

    start = msg.array_record({"w": np.ones(3, np.float32)})
    strategy = ContributionAveraging(members=lambda _: {n: f"s{n}" for n in (1, 2, 3)})
    outcome = strategy.run_round(LocalGrid(echo, {n: {} for n in (1, 2, 3)}), 1, start)
    assert [site.outcome for site in outcome.sites] == ["ok"] * 3
    assert (
        msg.named_arrays(start)["w"].tolist() == [1.0] * 3 == msg.named_arrays(outcome.arrays)["w"].tolist()
    )


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("packs", [False, True])
def test_replies_do_not_pile_up(packs: bool) -> None:
    """After a round with eight sites there are the model it began from and the new one."""
    local = LocalGrid(app(packs=packs), {n: {} for n in range(1, SITES + 1)})
    grid = PackingGrid(local)
    sent = [Message(msg.content(), n, msg.IDENTIFY) for n in range(1, SITES + 1)]
    list(grid.pull_messages(grid.push_messages(sent)))
    before = models()
    start = msg.array_record({"w": np.zeros(NUMBERS, np.float32)})
    strategy = ContributionAveraging(members=lambda _: {n: f"s{n}" for n in range(1, SITES + 1)})
    outcome = strategy.run_round(grid, 1, start)
    assert np.array_equal(msg.named_arrays(outcome.arrays)["w"], np.ones(NUMBERS, np.float32))
    # A site that packs its answer, here in the same process, has it plain as well.
    assert models() - before <= 2 + (SITES if packs else 0)
