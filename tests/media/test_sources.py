"""Folders, globs, lists, archives: what is found, in what order, under what name."""

from __future__ import annotations

import json
import os
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqtok.errors import DataError, UsageError
from vqtok.media import Source, list_sources, safe_name, scan_sources


def touch(root, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def uris(spec, modality: str = "image") -> list[str]:
    return [source.uri for source in list_sources(spec, modality)]


def test_folder(tmp_path):
    touch(tmp_path, "b.png", "a.JPG", "c/d/e.webp", "c/z.tiff", "B.gif", "notes.txt", "x", "y.TXT")
    listing = scan_sources(tmp_path)
    assert [s.uri for s in listing.sources] == ["B.gif", "a.JPG", "b.png", "c/d/e.webp", "c/z.tiff"]
    assert listing.skipped == {".txt": 2, "": 1}
    assert [s.read_bytes().decode() for s in listing.sources] == [s.uri for s in listing.sources]
    assert listing.sources[0].size == 5
    assert uris(str(tmp_path) + "/") == [s.uri for s in listing.sources]


def test_folder_order_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
    touch(tmp_path, *[f"{a}/{b}.png" for a in "cab" for b in "zyx"], "a.png", "a-1.png")
    straight = list_sources(tmp_path)
    scandir = os.scandir

    class Backwards:
        def __init__(self, path):
            with scandir(path) as entries:
                self.entries = list(entries)[::-1]

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *error):
            return None

    monkeypatch.setattr("vqtok.media.listing.os.scandir", Backwards)
    assert list_sources(tmp_path) == straight
    assert [s.uri for s in straight] == sorted(s.uri for s in straight)


def test_hidden_files_are_left_out(tmp_path):
    touch(tmp_path, ".a.png", ".git/b.png", "c/._d.png", "e.png")
    assert uris(tmp_path) == ["e.png"]


def test_links_and_loops(tmp_path):
    touch(tmp_path, "real/a.png")
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    (tmp_path / "same").symlink_to(tmp_path / "real")
    (tmp_path / "link.png").symlink_to(tmp_path / "real" / "a.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "gone")
    found = list_sources(tmp_path)
    assert [s.uri for s in found] == ["broken.png", "link.png", "real/a.png"]
    with pytest.raises(OSError, match="No such file"):
        found[0].open()


def test_what_is_no_file_fails_alone_when_it_is_opened(tmp_path):
    touch(tmp_path, "a.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    found = list_sources(tmp_path)
    assert [s.uri for s in found] == ["a.png", "loop.png", "pipe.png"]
    with pytest.raises(OSError, match="symbolic links"):
        found[1].open()
    with pytest.raises(DataError, match="not a regular file"):
        found[2].open()


def test_unlistable_folder_is_an_error(tmp_path, monkeypatch):
    touch(tmp_path, "a.png", "closed/b.png")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr("vqtok.media.listing.os.scandir", refuse)
    with pytest.raises(DataError, match="closed: cannot be listed: Permission denied"):
        list_sources(tmp_path)


def test_names_that_are_not_utf8(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.png")
    with open(path, "wb") as stream:
        stream.write(b"x")
    (source,) = list_sources(tmp_path)
    assert source.uri == "caf_.png"
    assert Source.from_json(json.loads(json.dumps(source.to_json()))).read_bytes() == b"x"


def test_glob(tmp_path):
    touch(tmp_path, "a/1.png", "a/2.jpg", "b/1.png", "b/c/1.png", "b/notes.txt", "a/.h.png")
    assert uris(f"{tmp_path}/*/1.png") == ["a/1.png", "b/1.png"]
    assert uris(f"{tmp_path}/**/*.png") == ["a/1.png", "b/1.png", "b/c/1.png"]
    assert uris(f"{tmp_path}/a/[12].*") == ["1.png", "2.jpg"]
    listing = scan_sources(f"{tmp_path}/b/*")
    assert [s.uri for s in listing.sources] == ["1.png"]
    assert listing.skipped == {".txt": 1}


def test_a_glob_of_folders(tmp_path):
    touch(tmp_path, "a/1.png", "b/1.png")
    with pytest.raises(
        UsageError, match=r"it matches 2 folders, whose files are matched by .*/\*/\*"
    ):
        list_sources(f"{tmp_path}/*")


def test_relative_paths(tmp_path, monkeypatch):
    touch(tmp_path, "d/a.png")
    monkeypatch.chdir(tmp_path)
    for spec in ("d", "./d", "d/*.png", "d/a.png", "../" + tmp_path.name + "/d/*"):
        (source,) = list_sources(spec)
        assert source == Source("a.png", str(tmp_path / "d" / "a.png")) or ".." in spec
        assert os.path.isabs(source.path)
        assert source.uri == "a.png"
        assert source.read_bytes() == b"d/a.png"


def test_a_name_with_brackets_is_a_file_before_it_is_a_glob(tmp_path):
    touch(tmp_path, "a[1].png", "a1.png")
    assert uris(tmp_path / "a[1].png") == ["a[1].png"]


def test_a_named_file_is_always_tried(tmp_path):
    touch(tmp_path, "photo.data")
    assert uris(tmp_path / "photo.data") == ["photo.data"]


def test_text_list(tmp_path):
    touch(tmp_path, "in/b.png", "in/a.data", "out.png")
    names = [
        "in/b.png",
        "",
        "in/a.data",
        "../" + tmp_path.name + "/out.png",
        "gone.png",
        "in/b.png",
    ]
    content = "\r\n".join([*names, str(tmp_path / "out.png")])
    (tmp_path / "list.txt").write_text(content, encoding="utf-8-sig", newline="")
    found = list_sources(tmp_path / "list.txt")
    name = tmp_path.name
    absolute = str(tmp_path / "out.png").lstrip("/")
    assert [s.uri for s in found] == [
        "in/b.png",
        "in/a.data",
        f"{name}/out.png",
        "gone.png",
        "in/b.png",
        absolute,
    ]
    assert found[2].read_bytes() == found[5].read_bytes() == b"out.png"
    with pytest.raises(FileNotFoundError):
        found[3].read_bytes()


def test_a_list_that_is_no_text(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"a.png\nb\0c\n")
    with pytest.raises(DataError, match=r"list\.txt, line 2: a NUL byte"):
        list_sources(tmp_path / "list.txt")


@given(st.lists(st.text().filter(str.strip), min_size=1))
def test_any_list_is_read_or_refused(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("list") / "list.txt"
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    try:
        found = list_sources(path)
    except (DataError, UsageError):
        return
    assert len(found) >= 1
    assert all(s.uri == safe_name(s.uri) for s in found)


@pytest.mark.parametrize("name", ["gone", "gone.png", "*.png", "gone/**"])
def test_nothing_there(tmp_path, name):
    with pytest.raises(UsageError, match=r"no such file|no image files"):
        list_sources(tmp_path / name)


def test_empty_folder_says_what_was_looked_for(tmp_path):
    with pytest.raises(UsageError, match=r"no image files here \(looked for .*\.png"):
        list_sources(tmp_path)
    touch(tmp_path, "a.txt", "b.tar", "c.heic")
    with pytest.raises(UsageError, match=r"1 \.txt, 1 \.tar, 1 \.heic.*FOLDER/\*\.tar"):
        list_sources(tmp_path)


def test_modalities(tmp_path):
    touch(tmp_path, "a.png", "b.wav", "c.mp4")
    assert uris(tmp_path, "image") == ["a.png"]
    assert uris(tmp_path, "audio") == ["b.wav", "c.mp4"]
    either = scan_sources(tmp_path, None)
    assert either.modalities == {"image": 1, "audio": 1}
    assert either.skipped == {".mp4": 1}
    assert scan_sources(tmp_path / "c.mp4", None).modalities == {"audio": 1}
    with pytest.raises(UsageError, match="unknown modality 'video'"):
        list_sources(tmp_path, "video")


def test_a_pipe_is_refused_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (source,) = list_sources(tmp_path / "a.png")
    with pytest.raises(DataError, match="not a regular file"):
        source.open()


def test_sources_travel(tmp_path):
    for source in (Source("a/b.png", "/x/a/b.png"), Source("t.tar/c.jpg", "/x/t.tar", 512, 0)):
        assert pickle.loads(pickle.dumps(source)) == source
        assert Source.from_json(json.loads(json.dumps(source.to_json()))) == source


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"uri": "a"},
        {"uri": "a", "path": 3},
        {"uri": "a", "path": "b", "offset": 1},
        {"uri": "a", "path": "b", "offset": -1, "length": 2},
        {"uri": "a", "path": "b", "offset": True, "length": 2},
        {"uri": "a", "path": "b", "extra": 1},
        ["a"],
    ],
)
def test_json_that_is_no_source(fields):
    with pytest.raises(DataError, match="not a source"):
        Source.from_json(fields)


def test_fingerprints_see_size_and_both_ends(tmp_path):
    content = bytes(range(256)) * 64

    def fingerprint(data: bytes, offset: int | None = None, length: int | None = None) -> str:
        (tmp_path / "x").write_bytes(data)
        return Source("x", str(tmp_path / "x"), offset, length).fingerprint()

    sound = fingerprint(content)
    assert len(sound) == 64
    for position in (0, 4095, len(content) - 4096, len(content) - 1):
        changed = bytearray(content)
        changed[position] ^= 1
        assert fingerprint(changed) != sound
    assert fingerprint(content[:8192]) != fingerprint(content[:8448]) != sound
    for size in (0, 1, 4096, 5000):
        part = content[:size]
        assert fingerprint(b"head" + part + b"tail", 4, size) == fingerprint(part)
    assert fingerprint(b"") != Source("x", str(tmp_path / "gone")).fingerprint() == ""
    os.mkfifo(tmp_path / "pipe")
    assert Source("x", str(tmp_path / "pipe")).fingerprint() == ""


# --- names from outside ---


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a/b.png", "a/b.png"),
        ("/etc/passwd", "etc/passwd"),
        ("../../x", "x"),
        ("a/../../b", "a/b"),
        ("./a//b/", "a/b"),
        ("C:\\Users\\x.png", "Users/x.png"),
        ("..\\..\\x", "x"),
        ("", "unnamed"),
        ("..", "unnamed"),
        ("a\nb\0c\x1b[31m", "a_b_c_[31m"),
        ("\udcff.png", "_.png"),
        ("écran\u202f1.png", "écran\u202f1.png"),
        ("x" * 300, "x" * 200),
        ("é" * 150, "é" * 100),
    ],
)
def test_safe_names(name, safe):
    assert safe_name(name) == safe


@given(st.text(st.characters(codec=None), max_size=30) | st.text(alphabet="./\\:Ca", max_size=20))
def test_no_name_leaves_its_folder(name):
    safe = safe_name(name)
    assert safe == safe_name(safe)
    safe.encode("utf-8")
    joined = os.path.normpath(os.path.join("/out", safe))
    assert joined.startswith("/out/")
    assert joined == "/out/" + safe
