"""Files are whole or absent."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from reconsent.files import AtomicWrites, read_or_make_secret, sha256_of, unlink_all, write_atomically


def names(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.rglob("*") if file.is_file())


def test_files_appear_together_and_only_at_the_end(tmp_path: Path) -> None:
    """Inside the block nothing stands under its name, after it everything does, in pieces put together."""
    paths = [tmp_path / str(i % 3) / f"{i}.bin" for i in range(12)]
    with AtomicWrites() as writes:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda path: writes.write(path, [b"ab", memoryview(b"cd"), b""]), paths))
        assert not any(path.exists() for path in paths)
    assert [path.read_bytes() for path in paths] == [b"abcd"] * 12
    assert len(names(tmp_path)) == 12


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    """If the block raises, or a piece cannot be had, the old file stays and no part is left."""
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def failing() -> Iterator[bytes]:
        yield b"new"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), AtomicWrites() as writes:
        writes.write(tmp_path / "b", [b"x"])
        writes.write(path, failing())
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_every_file_and_directory_is_flushed_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each content is flushed before its name changes, each directory after."""
    log: list[tuple[str, str]] = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(descriptor: int) -> None:
        log.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        real_sync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        log.append(("rename", target.name))
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    with AtomicWrites() as writes:
        for name in ("x/1", "x/2", "y/3"):
            writes.write(tmp_path / name, [b"content"])
    assert sorted(name.split(".")[1] for what, name in log[:3] if name.endswith(".part")) == ["1", "2", "3"]
    assert log[3:6] == [("rename", "1"), ("rename", "2"), ("rename", "3")]
    assert sorted(log[6:]) == [("sync", "x"), ("sync", "y")]


def test_a_single_file_replaces_the_old_one(tmp_path: Path) -> None:
    """The new content stands under the old name, in a directory that is made if need be."""
    path = tmp_path / "new" / "file"
    for content in (b"one", b"", b"three" * 1000):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert names(tmp_path) == ["file"]


def test_hash_of_pieces_is_that_of_the_whole() -> None:
    """Hashing in pieces changes nothing."""
    assert sha256_of(b"ab", memoryview(b"c")) == hashlib.sha256(b"abc").hexdigest() == sha256_of(b"abc")


def test_unlinking_what_is_gone_is_no_error(tmp_path: Path) -> None:
    """Of many files those there go, and those gone do not matter."""
    for i in range(5):
        (tmp_path / str(i)).write_bytes(b"")
    unlink_all([tmp_path / str(i) for i in range(3, 12)])
    assert names(tmp_path) == ["0", "1", "2"]


def test_whoever_makes_a_secret_at_once_reads_the_same(tmp_path: Path) -> None:
    """Eight at a time, twenty times: one secret each, that nobody else can read, and no part left over."""
    with ThreadPoolExecutor(8) as pool:
        for trial in range(20):
            path = tmp_path / str(trial) / "secret"
            together = Barrier(8)

            def make(path: Path = path, together: Barrier = together) -> bytes:
                together.wait(10)
                return read_or_make_secret(path, 32)

            (secret,) = {made.result() for made in [pool.submit(make) for _ in range(8)]}
            assert len(secret) == 32 and path.read_bytes() == secret
            assert path.stat().st_mode & 0o777 == 0o600
            assert [file.name for file in path.parent.iterdir()] == ["secret"]
