"""Packed records are the same arrays, and only who takes them gets them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from strategies import messages as msg
from strategies import packing
from strategies.local_grid import LocalGrid
from strategies.packing import NAME, STYPE, PackingGrid, is_packed, pack, packed_records, unpack

arrays = st.dictionaries(
    st.text(max_size=20),
    some.arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.bool_]),
        some.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    max_size=5,
)


def as_told(record: ArrayRecord) -> list[tuple[str, str, tuple[int, ...], str, bytes]]:
    return [(name, a.dtype, tuple(a.shape), a.stype, a.data) for name, a in record.items()]


def packed_of(data: bytes) -> ArrayRecord:
    return ArrayRecord({NAME: Array(dtype="uint8", shape=(len(data),), stype=STYPE, data=data)})


@given(arrays)
def test_arrays_come_out_as_they_went_in(named: dict[str, Any]) -> None:
    """Names, their order, types, shapes and every bit; packing twice is packing once."""
    record = msg.array_record(named)
    packed = pack(record)
    assert is_packed(packed)
    assert len(packed) == 1
    assert as_told(pack(packed)) == as_told(packed)
    assert as_told(unpack(packed)) == as_told(record)


@given(arrays, st.integers(1, 400))
def test_a_large_model_travels_as_a_few(named: dict[str, Any], size: int) -> None:
    """Whatever a part may hold: no part but the last is smaller, and the arrays come out as they went in."""
    record = msg.array_record(named)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "LEAST_PART_BYTES", size)
        packed = pack(record)
    assert is_packed(packed)
    assert all(len(part.data) >= size for part in list(packed.values())[:-1])
    assert as_told(pack(packed)) == as_told(packed)
    assert as_told(unpack(packed)) == as_told(record)


def test_one_array_in_two_parts_is_refused() -> None:
    """As it is in one."""
    part = next(iter(pack(msg.array_record({"a": np.ones(2)})).values()))
    with pytest.raises(ValueError, match="cut off"):
        unpack(ArrayRecord({NAME: part, f"{NAME}-1": part}))


def test_plain_records_stay() -> None:
    """A record that was never packed is passed on, though it may have one array of our name."""
    record = msg.array_record({NAME: np.zeros(3)})
    assert unpack(record) is record


@given(st.binary(max_size=200))
def test_nonsense_is_refused(data: bytes) -> None:
    """Whatever a site sends is unpacked or refused with the one error."""
    try:
        unpack(packed_of(data))
    except ValueError:
        return
    assert data[:4] == len(data[4:]).to_bytes(4, "big")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=12,
)


@given(anything | st.lists(st.lists(anything, min_size=5, max_size=5), max_size=2))
def test_any_header_is_read_or_refused(header: object) -> None:
    """JSON of every form, with infinities among its numbers."""
    text = json.dumps(header).encode()
    with suppress(ValueError):
        unpack(packed_of(len(text).to_bytes(4, "big") + text))


def test_half_a_character_is_no_name() -> None:
    """Such a name could not be written into any log or database."""
    text = b'[["\\ud800", "float32", [], "numpy.ndarray", 0]]'
    with pytest.raises(ValueError, match="surrogates not allowed"):
        unpack(packed_of(len(text).to_bytes(4, "big") + text))


def test_what_was_cut_or_prolonged_is_refused() -> None:
    """At every place, and by one byte."""
    whole = next(iter(pack(msg.array_record({"a": np.ones(2), "b": np.ones(())})).values())).data
    for end in range(len(whole)):
        with pytest.raises(ValueError, match=r"cut off|Expecting|Unterminated|cannot be read|Extra"):
            unpack(packed_of(whole[:end]))
    with pytest.raises(ValueError, match="longer"):
        unpack(packed_of(whole + b"x"))


class Wire(LocalGrid):
    """Notes the names of the arrays that pass in either direction."""

    def __init__(self, app: ClientApp, nodes: dict[int, dict[str, Any]]) -> None:
        super().__init__(app, nodes)
        self.there: dict[int, list[str]] = {}
        self.back: dict[int, list[str]] = {}

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send."""
        group = list(messages)
        for message in group:
            record = msg.arrays_of(message)
            if record is not None:
                self.there[message.metadata.dst_node_id] = list(record)
        return super().push_messages(group)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Receive."""
        replies = super().pull_messages(message_ids)
        for reply in replies:
            record = msg.arrays_of(reply)
            if record is not None:
                self.back[reply.metadata.src_node_id] = list(record)
        return replies


def doubling_app(*, packs: bool, told: dict[int, dict[str, bool]] | None = None) -> ClientApp:
    """Trains by doubling; unless told otherwise node 2 does not say that it takes packed records."""
    says = told or {1: {msg.PACKS: True, msg.PARTS: True}, 2: {"other": True}}
    app = ClientApp(mods=[packed_records] if packs else [])

    @app.query("identify")
    def identify(message: Message, context: Context) -> Message:
        return Message(msg.content(config={**says[context.node_id]}), reply_to=message)

    @app.train()
    def train(message: Message, _context: Context) -> Message:
        record = msg.arrays_of(message)
        assert record is not None
        doubled = {name: 2 * array for name, array in msg.named_arrays(record).items()}
        return Message(msg.content(arrays=msg.array_record(doubled)), reply_to=message)

    return app


def test_only_who_takes_packed_records_gets_them() -> None:
    """One record to both nodes: packed there and back for the one that said so, plain for the other."""
    wire = Wire(doubling_app(packs=True), {1: {}, 2: {}})
    grid = PackingGrid(wire)
    list(grid.pull_messages(grid.push_messages([Message(RecordDict(), n, msg.IDENTIFY) for n in (1, 2)])))
    model = msg.array_record({"w": np.arange(3.0), "b": np.ones(())})
    sent = [Message(msg.content(arrays=model, config={"x": 1}), n, msg.TRAIN) for n in (1, 2)]
    replies = list(grid.pull_messages(grid.push_messages(sent)))
    assert (wire.there, wire.back) == ({1: [NAME], 2: ["w", "b"]},) * 2
    for reply in replies:
        record = msg.arrays_of(reply)
        assert record is not None
        found = msg.named_arrays(record)
        assert list(found) == ["w", "b"]
        np.testing.assert_array_equal(found["w"], 2 * np.arange(3.0))
    # Who sent it has it as it was.
    assert [list(message.content[msg.ARRAYS]) for message in sent] == [["w", "b"]] * 2


@pytest.mark.parametrize(("node", "there"), [({msg.PACKS: True}, [NAME]), ({}, ["w", "b"])])
def test_only_who_takes_parts_gets_them(
    node: dict[str, bool], there: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node of former code gets a large model in one, and a server of former code is sent it in one."""
    monkeypatch.setattr(packing, "LEAST_PART_BYTES", 1)
    former = Wire(
        doubling_app(packs=True, told={1: node, 2: {msg.PACKS: True, msg.PARTS: True}}), {1: {}, 2: {}}
    )
    grid = PackingGrid(former)
    list(grid.pull_messages(grid.push_messages([Message(RecordDict(), n, msg.IDENTIFY) for n in (1, 2)])))
    model = msg.array_record({"w": np.arange(3.0), "b": np.ones(())})
    sent = [Message(msg.content(arrays=model, config={}), n, msg.TRAIN) for n in (1, 2)]
    assert len(list(grid.pull_messages(grid.push_messages(sent)))) == 2
    assert former.there == {1: there, 2: [NAME, f"{NAME}-1"]}
    asked = Message(msg.content(arrays=pack(model), config={msg.PACKS: True}), 2, msg.TRAIN)
    list(former.pull_messages(former.push_messages([asked])))
    assert former.back[2] == [NAME], "a server of former code did not say that it takes parts"


def test_a_spoilt_reply_is_no_model() -> None:
    """A packed record that cannot be unpacked comes through as it is, for the screening to refuse."""

    class Spoilt(LocalGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            replies = super().pull_messages(message_ids)
            for reply in replies:
                reply.content[msg.ARRAYS] = packed_of(b"\x00\x00\x00\xffnothing")
            return replies

    grid = PackingGrid(Spoilt(doubling_app(packs=False), {1: {}}))
    model = msg.array_record({"w": np.zeros(3)})
    (reply,) = grid.pull_messages(grid.push_messages([Message(msg.content(arrays=model), 1, msg.TRAIN)]))
    record = msg.arrays_of(reply)
    assert record is not None
    with pytest.raises(ValueError, match=STYPE):
        msg.viewed_arrays(record)
