from __future__ import annotations

import errno
import os
import sys
import threading
from pathlib import Path

import pytest

from vqtok import files
from vqtok.files import (
    atomic_folder,
    atomic_write,
    is_temporary,
    remove_temporaries,
    temporary_name,
)


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


def test_errors_name_the_file_that_was_wanted(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as failed:
        write(tmp_path / "none" / "a", b"")
    assert failed.value.filename == str(tmp_path / "none" / "a")


def test_a_message_without_a_number_is_kept(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="encoder") as failed, files.naming(tmp_path / "a"):
        raise OSError("the encoder says no")
    assert str(failed.value) == "the encoder says no"


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


def make(path: Path, content: str) -> None:
    with atomic_folder(path) as folder:
        (folder / "file").write_text(content)


@pytest.mark.parametrize("links", [True, False])
def test_a_name_that_is_taken_stays(tmp_path: Path, monkeypatch, links: bool) -> None:
    if not links:
        monkeypatch.setattr("os.link", refuse)
    write(tmp_path / "a", b"first", replace=False)
    with pytest.raises(FileExistsError):
        write(tmp_path / "a", b"second", replace=False)
    assert (tmp_path / "a").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["a"]


def refuse(*_names: object) -> None:
    raise OSError(errno.EOPNOTSUPP, "no hard links here")


def test_of_many_that_write_a_new_file_at_once_one_does(tmp_path: Path) -> None:
    together, won = threading.Barrier(8), []

    def work(number: int) -> None:
        try:
            with atomic_write(tmp_path / "a", replace=False) as file:
                file.write(b"%d" % number)
                together.wait()
        except FileExistsError:
            return
        won.append(number)

    for _ in range(20):
        won.clear()
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [b"%d" % number for number in won] == [(tmp_path / "a").read_bytes()]
        assert os.listdir(tmp_path) == ["a"]
        (tmp_path / "a").unlink()


def look_and_give_up(path: Path) -> None:
    with atomic_folder(path):
        assert (path / "file").read_text() in ("old", "new")
        raise ValueError("gave up")


def test_a_folder_that_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    """Those of a group that shares it, say."""
    path = tmp_path / "out"
    path.mkdir()
    path.chmod(0o770)
    make(path, "new")
    assert path.stat().st_mode & 0o777 == 0o770


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_that_is_replaced_is_there_after_any_kill(
    tmp_path: Path, monkeypatch, exchanges: bool
) -> None:
    """Killed before each rename and removal in turn: the old or the new one is there, whole."""
    if not exchanges:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    kills = 0
    while True:
        path = tmp_path / f"{kills}" / "out"
        make(path, "old")
        child = os.fork()
        if not child:
            steps = 0

            def die_at(event: str, _arguments: tuple, limit: int = kills) -> None:
                nonlocal steps
                if event in ("os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
                    steps += 1
                    if steps > limit:
                        os._exit(9)

            sys.addaudithook(die_at)
            make(path, "new")
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            break
        kills += 1
        if exchanges:
            assert (path / "file").read_text() in ("old", "new")
        # Whoever makes it next finds it, and leaves nothing over.
        with pytest.raises(ValueError, match="gave up"):
            look_and_give_up(path)
        assert (path / "file").read_text() in ("old", "new")
        make(path, "newest")
        assert (path / "file").read_text() == "newest"
        assert os.listdir(path.parent) == ["out"]
    assert (path / "file").read_text() == "new"
    assert os.listdir(path.parent) == ["out"]
    assert kills >= (3 if exchanges else 4)


def test_folders_are_exchanged_where_the_system_can(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if not files._exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("no renameat2 with RENAME_EXCHANGE on this file system")
    assert (tmp_path / "a" / "b").exists()
    assert (tmp_path / "b" / "a").exists()
    assert not files._exchange(tmp_path / "a", tmp_path / "c")
