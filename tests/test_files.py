from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from vqtok.files import atomic_write, is_temporary, remove_temporaries, temporary_name


def write(path: Path, content: bytes, **options: bool) -> None:
    with atomic_write(path, **options) as file:
        file.write(content)


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert not path.exists()
        assert all(is_temporary(each) for each in tmp_path.iterdir())
    assert path.read_bytes() == b"new"
    write(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert os.listdir(tmp_path) == ["a"]


def test_a_failure_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fail() -> None:
        with atomic_write(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_full_disk_is_said_of_the_file(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_write(tmp_path / "a"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        fail()
    assert caught.value.filename == str(tmp_path / "a")


@pytest.mark.parametrize("durable", [True, False])
def test_only_durable_files_are_synced(tmp_path: Path, monkeypatch, durable: bool) -> None:
    synced = []
    monkeypatch.setattr("os.fsync", synced.append)
    write(tmp_path / "a", b"x", durable=durable)
    assert len(synced) == (2 if durable else 0)  # the file and its folder


def test_names_of_any_length_have_temporary_ones(tmp_path: Path) -> None:
    for name in ("x" * 255, "é" * 127, "音" * 85):
        write(tmp_path / name, b"x")
        assert len(temporary_name(tmp_path / name).name.encode()) < 255
    assert len(os.listdir(tmp_path)) == 3


def test_only_leftovers_are_removed(tmp_path: Path) -> None:
    kept = ["a", ".hidden", "b.tmp", ".c.tmp.12"]
    for name in [*kept, temporary_name(tmp_path / "d").name]:
        (tmp_path / name).touch()
    remove_temporaries(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(kept)
