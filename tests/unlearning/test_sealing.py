"""Sealed files: what goes in comes out, and nothing but that, in its own place, under its own key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unlearning import sealing
from unlearning.sealing import HEAD_BYTES, TAG_BYTES, SealError, place, seal, sealed_size, unseal

KEY = bytes(range(32))
WHERE = place("contribution", "main", "knee", "update-000001.sealed")


def written(path: Path, content: bytes, key: bytes = KEY, where: bytes = WHERE) -> Path:
    path.write_bytes(b"".join(seal(key, where, [content])))
    return path


@pytest.fixture
def pieces_of_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "PIECE", 8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.binary(max_size=30), max_size=5))
def test_content_comes_back(parts: list[bytes], tmp_path: Path, pieces_of_eight: None) -> None:
    """Any content in any parts, over any number of pieces, comes back, in a file of the size foretold."""
    sealed = b"".join(seal(KEY, WHERE, parts))
    (tmp_path / "file").write_bytes(sealed)
    content = b"".join(parts)
    assert unseal(tmp_path / "file", KEY, WHERE) == content
    assert len(sealed) == sealed_size(len(content))


def test_pieces_of_real_size(tmp_path: Path) -> None:
    """Content of several full pieces and a rest comes back, and is nowhere in the file."""
    content = os.urandom(2 * sealing.PIECE + 17)
    file = written(tmp_path / "file", content)
    assert unseal(file, KEY, WHERE) == content
    assert content[:32] not in file.read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bit=st.integers(0, 8 * sealed_size(20) + 8 * 2 * TAG_BYTES - 1))
def test_any_changed_bit_is_found(bit: int, tmp_path: Path, pieces_of_eight: None) -> None:
    """Whichever bit of the file is turned over, it is not opened."""
    file = written(tmp_path / "file", b"x" * 20)
    altered = bytearray(file.read_bytes())
    altered[bit // 8] ^= 1 << bit % 8
    file.write_bytes(altered)
    with pytest.raises(SealError):
        unseal(file, KEY, WHERE)


def test_pieces_left_out_moved_or_cut_off_are_found(tmp_path: Path, pieces_of_eight: None) -> None:
    """A file that lacks a piece anywhere, or has two in another order, or has one more, is not opened."""
    whole = written(tmp_path / "file", bytes(range(24))).read_bytes()
    size = 8 + TAG_BYTES
    head, body = whole[:HEAD_BYTES], whole[HEAD_BYTES:]
    one, two, three = (body[i : i + size] for i in (0, size, 2 * size))
    for wrong in ([one, two], [one, three], [two, one, three], [one, two, three, three], [one], []):
        (tmp_path / "file").write_bytes(head + b"".join(wrong))
        with pytest.raises(SealError):
            unseal(tmp_path / "file", KEY, WHERE)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 39, 40, 55])
def test_truncated_to_almost_nothing(length: int, tmp_path: Path) -> None:
    """A file shorter than any sealed one is not opened."""
    file = written(tmp_path / "file", b"content")
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(SealError):
        unseal(file, KEY, WHERE)


def test_another_key_or_place_does_not_open_it(tmp_path: Path) -> None:
    """A file is opened by its key in its place only: not as another site's, round's or kind's."""
    file = written(tmp_path / "file", b"content")
    with pytest.raises(SealError):
        unseal(file, bytes(32), WHERE)
    for other in (("contribution", "main", "brain", "update-000001.sealed"), ("spool", "knee")):
        with pytest.raises(SealError):
            unseal(file, KEY, place(*other))


def test_places_are_told_apart() -> None:
    """Names that give the same text when joined are different places."""
    assert place("ab", "c") != place("a", "bc")
    assert place("a") != place("a", "")


def test_equal_contents_give_different_files() -> None:
    """Whether two files hold the same cannot be seen."""
    assert b"".join(seal(KEY, WHERE, [b"same"])) != b"".join(seal(KEY, WHERE, [b"same"]))
