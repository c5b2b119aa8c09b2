"""Codes of other programs, in the shapes that these leave in .npy files."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vqtok.cli import main
from vqtok.errors import DataError, UsageError
from vqtok.media import scan_sources
from vqtok.media.sources import Source
from vqtok.pipeline import ForeignCodes, Share, encode_dataset, make_plan
from vqtok.pipeline.arrays import EXTENSIONS, read_npy
from vqtok.tokens import TokenReader, verify

RNG = np.random.default_rng(0)


def convert(folder: Path, codes: ForeignCodes, out: Path, **options: Any) -> TokenReader:
    plan = make_plan(scan_sources(folder, extensions=EXTENSIONS).sources, codes, shard_size=2)
    encode_dataset(plan, codes, out, **options)
    assert verify(out) == []
    return TokenReader(out)


IMAGE, AUDIO = "image", "audio"


@pytest.mark.parametrize(
    ("shape", "sizes", "modality", "axes", "grid", "samples", "dims"),
    [
        ((4, 6), (9,), IMAGE, None, None, 1, (4, 6)),
        ((4, 6, 1), (9,), IMAGE, None, None, 1, (4, 6)),
        ((4, 6, 2), (9, 5), IMAGE, None, None, 1, (4, 6)),
        ((10, 4, 6), (9,), IMAGE, None, None, 10, (4, 6)),  # 4M: crops
        ((1, 10, 24), (9,), IMAGE, ("hw",), (4, 6), 10, (4, 6)),  # LlamaGen: 1, crops, codes
        ((3, 2, 24), (9, 5), IMAGE, ("q", "hw"), (4, 6), 3, (4, 6)),
        ((24, 2), (9, 5), IMAGE, ("hw", "q"), (4, 6), 1, (4, 6)),
        ((2, 6, 4), (9, 5), IMAGE, ("q", "w", "h"), None, 1, (4, 6)),
        ((7,), (9,), AUDIO, None, None, 1, (7, 1)),
        ((7, 2), (9, 5), AUDIO, None, None, 1, (7, 1)),
        ((1, 2, 7), (9, 5), AUDIO, ("q", "t"), None, 1, (7, 1)),  # EnCodec: batch, codebooks
        ((7, 3, 2), (9, 5), AUDIO, ("t", "c", "q"), None, 1, (7, 3)),
        ((3, 7), (9,), AUDIO, ("c", "t"), None, 1, (7, 3)),
    ],
)
def test_shapes(shape, sizes, modality, axes, grid, samples, dims, tmp_path: Path) -> None:
    array = RNG.integers(0, min(sizes), shape)
    np.save(tmp_path / "x.npy", array.astype(np.int16))
    codes = ForeignCodes("other", sizes, modality, axes, grid)
    reader = convert(tmp_path, codes, tmp_path / "out")
    assert (len(reader), reader.header.codebook_sizes) == (samples, sizes)
    assert (reader.header.tokenizer_name, len(reader.header.tokenizer)) == ("other", 64)
    for index, sample in enumerate(reader):
        assert sample.codes.shape == (*dims, len(sizes))
        assert sample.meta["source"] == "x.npy"
        assert sample.meta.get("crop") in (None, index, [0, index])
    # Every code, at its place: spelled out for each pattern with einsum-like indexing.
    for index, sample in enumerate(reader):
        for place in np.ndindex(*sample.codes.shape):
            names = dict(zip("hwq" if modality == IMAGE else "tcq", place, strict=True))
            if grid is not None:
                names["hw"] = names["h"] * grid[1] + names["w"]
            default = ("h", "w", "q") if modality == IMAGE else ("t", "q")
            used = axes or (default if array.ndim >= len(default) and
                            (len(sizes) > 1 or shape[-1] == 1) else default[:-1])  # fmt: skip
            crops = np.unravel_index(index, shape[: len(shape) - len(used)] or (1,))
            crop = tuple(int(i) for i in crops) if len(shape) > len(used) else ()
            assert sample.codes[place] == array[(*crop, *(names[name] for name in used))]


@pytest.mark.parametrize(
    ("sizes", "modality", "axes", "grid", "message"),
    [
        ((9,), IMAGE, ("h",), None, "'h' are not those of image codes"),
        ((9,), IMAGE, ("h", "w", "w"), None, "are not those"),
        ((9,), IMAGE, ("t",), None, "are not those of image"),
        ((9,), AUDIO, ("h", "w"), None, "are not those of audio"),
        ((9,), IMAGE, ("hw",), None, "a grid is needed"),
        ((9,), IMAGE, ("h", "w"), (4, 4), "a grid is needed"),
        ((9,), IMAGE, None, (4, 4), "a grid is needed"),
        ((9, 5), IMAGE, ("h", "w"), None, "one axis must be q"),
    ],
)
def test_senseless_axes(sizes, modality, axes, grid, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ForeignCodes("other", sizes, modality, axes, grid)


def npy(array: np.ndarray, **change: Any) -> bytes:
    buffer = io.BytesIO()
    header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape} | change
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + array.tobytes()


GOOD = np.arange(6, dtype=np.int64).reshape(2, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a .npy file"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "not a .npy file"),
        (b"\x93NUMPY\x03\x00" + npy(GOOD)[8:], "version"),
        (npy(GOOD)[:-1], "47 bytes are no array of shape"),
        (npy(GOOD) + b"\0", "49 bytes are no array"),
        (npy(GOOD, shape=(1 << 40, 1 << 40)), "48 bytes are no array"),
        (npy(GOOD, shape=(-2, -3)), "no array of shape"),
        (npy(GOOD, shape="x"), "not a .npy file"),
        (npy(GOOD, descr=()), "not a .npy file"),
        (npy(GOOD[:0], shape=(0, 10**30)), "not a .npy file"),
        (b"\x93NUMPY\x01\x00\x08\x00{[]: 1}\n", "not a .npy file"),
        (b"\x93NUMPY\x01\x00\x08\x00{'a': ((", "not a .npy file"),
        (b"\x93NUMPY\x01\x00\x28\x23" + b"-" * 8999 + b"1", "not a .npy file"),
        (npy(GOOD.astype(np.float32)), "float32, not integers"),
        (npy(GOOD, descr="|O"), "not integers"),
        (npy(np.array([1, 2])), r"shape \[2\] has no axes h w"),
        (npy(GOOD + 4), r"span \[4, 9\], K is 9"),
        (npy(GOOD.astype(np.int16) - 1), r"span \[-1, 4\]"),
        (npy(GOOD[:0]), r"shape \[0, 3, 1\]"),
        (pickle.dumps(GOOD), "not a .npy file"),
    ],
)
def test_bad_files_are_listed(content: bytes, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "codes"
    folder.mkdir()
    (folder / "a.npy").write_bytes(npy(GOOD))
    (folder / "b.npy").write_bytes(content)
    codes = ForeignCodes("other", (9,))
    tracemalloc.start()
    try:
        reader = convert(folder, codes, tmp_path / "out")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert len(reader) == 1
    (line,) = (tmp_path / "out/errors.jsonl").read_text().splitlines()
    assert json.loads(line)["source"] == "b.npy"
    with pytest.raises(DataError, match=rf"^b\.npy: .*{message}"):
        codes.samples(Source("b.npy", str(folder / "b.npy")), reader.header)


def test_fortran_order_and_big_endian(tmp_path: Path) -> None:
    for name, array in (("f", np.asfortranarray(GOOD)), ("b", GOOD.astype(">u4"))):
        np.save(tmp_path / f"{name}.npy", array)
        np.testing.assert_array_equal(read_npy(Source(name, str(tmp_path / f"{name}.npy"))), GOOD)


def test_members_of_an_archive(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(npy(GOOD))
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        for name in ("a.npy", "a.txt", "b.npy"):
            archive.add(tmp_path / "x.npy", name)
    reader = convert(tmp_path / "t.tar", ForeignCodes("other", (9,)), tmp_path / "out")
    assert [sample.meta["source"] for sample in reader] == ["t.tar/a.npy", "t.tar/b.npy"]


def test_it_goes_on_and_in_shares(tmp_path: Path, folder_contents) -> None:
    folder = tmp_path / "codes"
    folder.mkdir()
    for i in range(5):
        np.save(folder / f"{i}.npy", RNG.integers(0, 9, (2, 3)))
    codes = ForeignCodes("other", (9,))
    convert(folder, codes, tmp_path / "out")
    plan = make_plan(scan_sources(folder, extensions=EXTENSIONS).sources, codes, shard_size=2)
    for rank in range(3):
        encode_dataset(plan, codes, tmp_path / "shares", share=Share(rank, 3))
    assert folder_contents(tmp_path / "shares") == folder_contents(tmp_path / "out")
    shutil.rmtree(tmp_path / "shares")
    encode_dataset(plan, codes, tmp_path / "shares", share=Share(0, 3))
    other = ForeignCodes("other", (9,), axes=("w", "h"))
    with pytest.raises(UsageError, match="reading 'npy w h' instead of 'npy '"):
        convert(folder, other, tmp_path / "shares")
    with pytest.raises(UsageError, match=r"tokenizer 'third' .* instead of 'other'"):
        convert(folder, ForeignCodes("third", (9,)), tmp_path / "shares")


def test_the_command_line(tmp_path: Path, capsys, toy, encoded, folder_contents) -> None:
    """Exported codes come back."""
    assert main(["export", str(encoded), str(tmp_path / "npy"), "--to", "npy"]) == 0
    command = ["convert", str(tmp_path / "npy"), str(tmp_path / "out")]
    assert main([*command, "--name", "toy", "--codebook-sizes", "16,50", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (facts["samples"], facts["errors"]) == (8, 0)
    before = {sample.meta["source"][:-4]: sample.codes for sample in TokenReader(encoded)}
    after = {sample.meta["source"][:-4]: sample.codes for sample in TokenReader(tmp_path / "out")}
    assert before.keys() == after.keys()
    for name, codes in before.items():
        np.testing.assert_array_equal(codes, after[name])
    capsys.readouterr()
    for options, message in (
        ([], "say what made the codes"),
        (["--name", "x"], "say what made the codes"),
        (["--name", "x", "--codebook-sizes", "5,"], "--codebook-sizes 5,: say numbers"),
        (["--name", "x", "--codebook-sizes", "5", "--grid", "4"], "--grid 4: say HxW"),
        (["--name", "x", "--codebook-sizes", "5", "--axes", "t"], "--axes: axes 't' are not"),
        (["--name", "x", "--codebook-sizes", "5", "--num-codebooks", "1"], "--num-codebooks goes"),
        (["--tokenizer", "photo", "--name", "x"], "--tokenizer says name"),
    ):
        assert main([*command, *options]) == 2
        assert message in capsys.readouterr().err


def test_codes_of_a_tokenizer_can_be_decoded(tmp_path: Path, capsys) -> None:
    (tmp_path / "codes").mkdir()
    np.save(tmp_path / "codes/x.npy", RNG.integers(0, 1024, (2, 3, 1)))
    command = ["convert", str(tmp_path / "codes"), str(tmp_path / "out"), "--tokenizer", "photo"]
    assert main([*command, "--num-codebooks", "99"]) == 2
    assert "--num-codebooks 99: photo has 4" in capsys.readouterr().err
    assert main([*command, "--num-codebooks", "1"]) == 0
    assert main(["decode", str(tmp_path / "out"), str(tmp_path / "decoded")]) == 0
    assert "1 image decoded" in capsys.readouterr().out
