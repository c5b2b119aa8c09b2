"""Tar archives read in place: the right bytes, hostile names, and no quietly missing members."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqtok.errors import DataError, UsageError
from vqtok.media import list_sources, scan_sources
from vqtok.media.tar import list_members


def archive(path, members, layout=tarfile.PAX_FORMAT, **options):
    """Write members, (name, content) each, or (name, content, type)."""
    with tarfile.open(path, "w", format=layout, **options) as tar:
        for name, content, *kind in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.type = kind[0] if kind else tarfile.REGTYPE
            tar.addfile(info, io.BytesIO(content))
    return path


MEMBERS = [(f"{i:03d}.{ext}", bytes([i]) * (i * 77)) for i in range(9) for ext in ("jpg", "json")]


@pytest.mark.parametrize("layout", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_members_are_read_in_place(tmp_path, layout):
    path = archive(tmp_path / "train-000.tar", MEMBERS, layout)
    listing = scan_sources(path)
    assert [s.uri for s in listing.sources] == [f"train-000.tar/{i:03d}.jpg" for i in range(9)]
    assert [s.read_bytes() for s in listing.sources] == [bytes([i]) * (i * 77) for i in range(9)]
    assert [s.size for s in listing.sources] == [i * 77 for i in range(9)]
    assert listing.skipped == {".json": 9}
    assert [p.name for p in tmp_path.iterdir()] == ["train-000.tar"]  # nothing was extracted


@pytest.mark.parametrize("layout", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_foreign_names(tmp_path, layout):
    names = ["d/" * 60 + "x" * 150 + ".png", "ü/日本.png"]
    path = archive(tmp_path / "a.tar", [(name, b"1") for name in names], layout)
    assert [s.uri for s in list_sources(path)] == [f"a.tar/{name}" for name in names]


def test_a_tar_of_a_whole_folder(tmp_path):
    (tmp_path / "in" / "d").mkdir(parents=True)
    (tmp_path / "in" / "d" / "a.png").write_bytes(b"a")
    (tmp_path / "in" / "b.png").write_bytes(b"b")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "in", ".")
    assert {s.uri: s.read_bytes() for s in list_sources(tmp_path / "a.tar")} == {
        "a.tar/d/a.png": b"a",
        "a.tar/b.png": b"b",
    }


def test_globs_of_archives(tmp_path):
    for i in (2, 0, 1):
        archive(tmp_path / f"{i}.tar", [("same.png", bytes([i]))])
    (tmp_path / "loose.png").write_bytes(b"")
    found = list_sources(f"{tmp_path}/*")
    assert [s.uri for s in found] == [f"{i}.tar/same.png" for i in range(3)] + ["loose.png"]
    assert [s.read_bytes() for s in found[:3]] == [b"\0", b"\1", b"\2"]
    assert [s.uri for s in list_sources(f"{tmp_path}/*.tar")] == [s.uri for s in found[:3]]


def test_archives_in_a_list(tmp_path):
    archive(tmp_path / "a.tar", [("x.png", b"x")])
    (tmp_path / "list.txt").write_text("a.tar\n")
    assert [s.uri for s in list_sources(tmp_path / "list.txt")] == ["a.tar/x.png"]


def test_two_members_of_the_same_name_are_both_kept(tmp_path):
    path = archive(tmp_path / "a.tar", [("x.png", b"one"), ("x.png", b"two")])
    assert [s.read_bytes() for s in list_sources(path)] == [b"one", b"two"]


@pytest.mark.parametrize(
    ("name", "uri"),
    [
        ("/etc/evil.png", "etc/evil.png"),
        ("../../evil.png", "evil.png"),
        ("a/../../evil.png", "a/evil.png"),
        ("..\\..\\evil.png", "evil.png"),
        ("C:/evil.png", "evil.png"),
        ("a\nb.png", "a_b.png"),
    ],
)
def test_hostile_names_become_plain_ones(tmp_path, name, uri):
    (source,) = list_sources(archive(tmp_path / "a.tar", [(name, b"x")]))
    assert source.uri == f"a.tar/{uri}"
    assert source.read_bytes() == b"x"


def test_links_devices_and_hidden_members_are_left_out(tmp_path):
    kinds = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
    members = [(f"{i}.png", b"", kind) for i, kind in enumerate(kinds)]
    members += [("._mac.png", b"x"), (".hidden/y.png", b"x"), ("z.png", b"x")]
    assert [s.uri for s in list_sources(archive(tmp_path / "a.tar", members))] == ["a.tar/z.png"]


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
@pytest.mark.parametrize("name", ["a.tar", "a.tar.{}"])
def test_compressed_archives_are_refused(tmp_path, compression, name):
    path = tmp_path / name.format(compression)
    with tarfile.open(path, f"w:{compression}"):
        pass
    with pytest.raises(UsageError, match="unpack it first"):
        list_sources(path)


def test_no_images_inside(tmp_path):
    with pytest.raises(UsageError, match=r"no image files here.*2 \.txt"):
        list_sources(archive(tmp_path / "a.tar", [("a.txt", b""), ("b.txt", b"")]))
    with pytest.raises(UsageError, match="no image files here"):
        list_sources(archive(tmp_path / "b.tar", []))


@pytest.mark.parametrize("content", [b"", b"not an archive " * 100, b"\xff" * 2048])
def test_no_archive_at_all(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar: (not a tar archive|something follows)"):
        list_sources(tmp_path / "a.tar")


def test_a_cut_anywhere_is_noticed(tmp_path):
    whole = archive(tmp_path / "a.tar", MEMBERS).read_bytes()
    content_end = len(whole.rstrip(b"\0"))
    for cut in [*range(1, content_end, 97), *range(512, content_end, 512)]:
        (tmp_path / "a.tar").write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"a\.tar: .*(truncated|damaged)"):
            list_sources(tmp_path / "a.tar")


def test_a_damaged_header_is_noticed(tmp_path):
    content = bytearray(archive(tmp_path / "a.tar", MEMBERS).read_bytes())
    content[content.index(b"004.jpg")] ^= 1
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DataError, match="a damaged header, or several archives"):
        list_sources(tmp_path / "a.tar")


def test_joined_archives_are_noticed(tmp_path):
    one = archive(tmp_path / "a.tar", MEMBERS).read_bytes()
    (tmp_path / "a.tar").write_bytes(one * 2)
    with pytest.raises(DataError, match="several archives joined into one"):
        list_sources(tmp_path / "a.tar")


def test_a_sparse_member_is_refused(tmp_path):
    members = [("x.png", b"x", tarfile.GNUTYPE_SPARSE)]
    with pytest.raises(DataError, match="sparse"):
        list_sources(archive(tmp_path / "a.tar", members, tarfile.GNU_FORMAT))


@pytest.mark.parametrize("size", [-512, -10_000, 1 << 40, (1 << 62) + 5])
def test_a_size_that_lies_is_noticed(tmp_path, size):
    info = tarfile.TarInfo("x.png")
    info.size = size
    header = info.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "a.tar").write_bytes(header + bytes(4096))
    with pytest.raises(DataError, match=r"a\.tar: "):
        list_sources(tmp_path / "a.tar")


def test_the_archive_shrinks_after_it_was_listed(tmp_path):
    path = archive(tmp_path / "a.tar", MEMBERS)
    last = list_sources(path)[-1]
    path.write_bytes(path.read_bytes()[: last.offset + 5])
    with pytest.raises(DataError, match="has become shorter"):
        last.read_bytes()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damage_is_refused_or_stays_inside_the_archive(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    content = bytearray(
        archive(path, [("a" * 120 + ".png", b"1234"), ("b.png", b"5")]).read_bytes()
    )
    content = content[: len(content.rstrip(b"\0")) + 1024]
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        members = list_members(str(path))
    except (DataError, UsageError):
        return
    for member in members:
        assert 0 <= member.offset <= member.offset + member.length <= len(content)
