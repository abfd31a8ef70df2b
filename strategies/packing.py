"""A model as one object of a Flower message instead of one for each of its arrays.

Over gRPC Flower sends every array of a message as objects of their own, each pulled and pushed with a
request, a look at the database and a check of who asks, at each of four hops. A network of eighty arrays is
then over a thousand requests a site and round, which takes longer than everything else that a small
consortium does. So the arrays of a record travel as one, or of a large model as a few. Bits, order, names and
types stay the same.

A node is sent packed records only once it has said that it takes them (:data:`~strategies.messages.PACKS` in
its answer to ``identify``), and in several parts only if it said that too; it answers in kind. Any other
ClientApp sees plain records.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from strategies import messages as msg

NAME = "packed"
STYPE = "reconsent.packed.1"
LENGTH_BYTES = 4
LARGEST_HEADER = 2**20
LEAST_PART_BYTES = 2**24
"""Of one that a large model is packed into, but for the last: Flower has an array three times when it puts it
together again. An array is not divided.
"""


def pack(record: ArrayRecord, *, parts: bool = True) -> ArrayRecord:
    """The same arrays as one, of a large model as a few unless ``parts`` is false.

    Each is a header's length, the header, and the bytes of some arrays one after the other. The header is
    JSON: a list of name, dtype, shape, kind and number of bytes. A packed record stays as it is.
    """
    if is_packed(record):
        return record
    packed: dict[str, Array] = {}
    for number, group in enumerate(_groups(record, LEAST_PART_BYTES if parts else sys.maxsize)):
        header = [[name, a.dtype, list(a.shape), a.stype, len(a.data)] for name, a in group]
        text = json.dumps(header).encode()
        data = b"".join([len(text).to_bytes(LENGTH_BYTES, "big"), text, *(a.data for _, a in group)])
        name = f"{NAME}-{number}" if number else NAME
        packed[name] = Array(dtype="uint8", shape=(len(data),), stype=STYPE, data=data)
    return ArrayRecord(packed)


def is_packed(record: ArrayRecord) -> bool:
    """Whether a record is one that :func:`pack` made."""
    return len(record) > 0 and all(a.stype == STYPE for a in record.values())


def unpack(record: ArrayRecord) -> ArrayRecord:
    """The arrays that were packed; any other record stays as it is.

    Raises
    ------
    ValueError
        If it is not whole, or nothing that :func:`pack` made.
    """
    if not is_packed(record):
        return record
    found: dict[str, Array] = {}
    for array in record.values():
        _unpack(array.data, found)
    return ArrayRecord(found)


def _groups(record: ArrayRecord, least: int) -> Iterator[list[tuple[str, Array]]]:
    """The arrays in order, in groups of ``least`` bytes but for the last; one that is empty for no arrays."""
    group: list[tuple[str, Array]] = []
    size = 0
    for name, array in record.items():
        if size >= least:
            yield group
            group, size = [], 0
        group.append((name, array))
        size += len(array.data)
    yield group


def _unpack(data: bytes, found: dict[str, Array]) -> None:
    length = int.from_bytes(data[:LENGTH_BYTES], "big")
    if length > min(LARGEST_HEADER, len(data)):
        raise ValueError("a packed record is cut off")
    at = LENGTH_BYTES + length
    try:
        for name, dtype, shape, stype, size in json.loads(data[LENGTH_BYTES:at]):
            strings = all(isinstance(word, str) for word in (name, dtype, stype))
            if not strings or not all(_is_count(n) for n in (size, *shape)):
                raise ValueError("the header of a packed record has something else than was agreed")
            # What no text can be written as, such as half a character, is a ValueError, too.
            name.encode()
            if name in found or at + size > len(data):
                raise ValueError("the arrays of a packed record are cut off")
            found[name] = Array(
                dtype=dtype, shape=tuple(shape), stype=stype, data=bytes(data[at : at + size])
            )
            at += size
    except (TypeError, RecursionError) as error:
        raise ValueError(f"the header of a packed record cannot be read ({error})") from None
    if at != len(data):
        raise ValueError("a packed record is longer than its arrays")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


class PackingGrid(Grid):
    """Flower's way to the nodes, with packed records to and from those nodes that take them.

    Parameters
    ----------
    grid
        What sends and receives.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._able: dict[int, bool] = {}
        """Node that takes packed records → whether in several parts."""

    def set_run(self, run: Run) -> None:
        """As the grid does."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """As of the grid."""
        return self._grid.run

    def create_message(self, *args: object, **named: object) -> Message:
        """As the grid does."""
        return self._grid.create_message(*args, **named)  # type: ignore[arg-type]

    def get_node_ids(self) -> Iterable[int]:
        """As the grid does."""
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """As the grid does."""
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send; what goes to a node that takes packed records is packed, once for all of them."""
        group = list(messages)
        packed: dict[tuple[int, bool], ArrayRecord] = {}
        plain: list[tuple[Message, str, ArrayRecord]] = []
        try:
            for message in group:
                if message.metadata.dst_node_id in self._able and message.has_content():
                    _ask_packed(message)
                    for key, record in list(message.content.array_records.items()):
                        plain.append((message, key, record))
                        which = id(record), self._able[message.metadata.dst_node_id]
                        if which not in packed:
                            packed[which] = pack(record, parts=which[1])
                        message.content[key] = packed[which]
            return self._grid.push_messages(group)
        finally:
            # Who sent them may keep the messages, which then must not keep a second copy of the model.
            for message, key, record in plain:
                message.content[key] = record
            for made in packed.values():
                if not any(made is record for _, _, record in plain):
                    made.clear()

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Receive; a packed record that cannot be unpacked stays, and is no model to whoever screens it."""
        for reply in self._grid.pull_messages(message_ids):
            if reply.has_content():
                if (
                    reply.metadata.message_type == msg.IDENTIFY
                    and msg.config_of(reply).get(msg.PACKS) is True
                ):
                    in_parts = msg.config_of(reply).get(msg.PARTS) is True
                    self._able[reply.metadata.src_node_id] = in_parts
                for packed in _unpack_all(reply):
                    # Views of Flower's records outlive their use; see strategies.messages.let_go.
                    packed.clear()
            yield reply

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """As the grid does, unpacked."""
        return self._grid.send_and_receive(messages, timeout=timeout)


def packed_records(
    message: Message, context: Context, call_next: Callable[[Message, Context], Message]
) -> Message:
    """A Flower mod, the outermost: unpacks what comes, and packs the answer if the server asks for it.

    What cannot be unpacked stays as it is, and is no model to the mods and the app inside.
    """
    told = msg.config_of(message) if message.has_content() else {}
    wanted, parts = told.get(msg.PACKS) is True, told.get(msg.PARTS) is True
    if message.has_content():
        _unpack_all(message)
    reply = call_next(message, context)
    if wanted and reply.has_content():
        for key, record in list(reply.content.array_records.items()):
            reply.content[key] = pack(record, parts=parts)
    return reply


def _unpack_all(message: Message) -> list[ArrayRecord]:
    """Unpack what can be; returns the records that were packed."""
    packed = []
    for key, record in list(message.content.array_records.items()):
        with suppress(ValueError):
            message.content[key] = plain = unpack(record)
            if plain is not record:
                packed.append(record)
    return packed


def _ask_packed(message: Message) -> None:
    config = message.content.config_records.get(msg.CONFIG)
    if config is None:
        message.content[msg.CONFIG] = ConfigRecord({msg.PACKS: True, msg.PARTS: True})
    else:
        config[msg.PACKS] = config[msg.PARTS] = True
