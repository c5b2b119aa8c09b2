from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vqtok.errors import DataError, UsageError, VqtokError
from vqtok.media import read_image
from vqtok.pipeline import decode_dataset
from vqtok.pipeline.naming import Namer, make_parents
from vqtok.tokens import Header, Sample, TokenReader, write_manifest, write_shard

HOSTILE = [
    "/etc/passwd", "../../../up.png", "a/../../b.png", "..", ".", "", "/", "C:\\x.png", "..\\y.png",
    "\\\\server\\share\\z.png", "a//b.png", "a/./b.png", "nul\0byte.png", "line\nbreak.png",
    "~/x.png", "x" * 300 + ".png", "\udcff.png", "-rf", "con", "a/" * 3000 + "long.png",
]  # fmt: skip


def toy_dataset(folder: Path, metas: list[dict], sizes=(16, 50)) -> TokenReader:
    """One 8x8-pixel sample per metadata object; sample i has code i % 16."""
    folder.mkdir()
    header = Header(tokenizer="70" * 32, tokenizer_name="toy", codebook_sizes=sizes)
    samples = [
        Sample(np.array([[[i % 16, 0]]]), {"size": [8, 8], **meta}) for i, meta in enumerate(metas)
    ]
    write_manifest(folder, header, [write_shard(folder / "s.safetensors", samples, header)])
    return TokenReader(folder)


def files_below(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}


def test_images_have_their_names_and_sizes(encoded: Path, toy, tmp_path: Path) -> None:
    reader, tokenizer = TokenReader(encoded), toy.ToyTokenizer()
    seen: list[int] = []
    report = decode_dataset(reader, tokenizer, tmp_path / "out", progress=seen.append)
    assert (report.decoded, report.failures, sum(seen)) == (8, (), 8)
    for sample in reader:
        pixels = read_image(tmp_path / "out" / sample.meta["source"]).pixels
        codes = torch.from_numpy(sample.codes)[None]
        expected = tokenizer.decode(codes, tuple(sample.meta["size"]))
        np.testing.assert_array_equal(pixels, expected[0].permute(1, 2, 0).numpy())
    assert len(files_below(tmp_path / "out")) == 8


@pytest.mark.parametrize("image_format", ["jpg", "webp"])
def test_other_formats_and_fewer_codebooks(encoded, toy, tmp_path, image_format: str) -> None:
    decode_dataset(
        TokenReader(encoded / "shard-00000.safetensors"),
        toy.ToyTokenizer(),
        tmp_path / "out",
        file_format=image_format,
        quality=80,
        num_codebooks=1,
    )
    assert {os.path.splitext(name)[1] for name in files_below(tmp_path / "out")} == {
        f".{image_format}"
    }


def test_hostile_names_stay_inside(toy, tmp_path: Path) -> None:
    reader = toy_dataset(tmp_path / "tokens", [{"source": name} for name in HOSTILE])
    report = decode_dataset(reader, toy.ToyTokenizer(), tmp_path / "deep/er/out")
    assert (report.decoded, report.failures) == (len(HOSTILE), ())
    outside = files_below(tmp_path) - {f"tokens/{name}" for name in os.listdir(tmp_path / "tokens")}
    assert all(name.startswith("deep/er/out/") for name in outside)
    assert len(outside) == len(HOSTILE)
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_metadata_of_any_kind(toy, tmp_path: Path) -> None:
    metas = [{}, {"source": 7}, {"source": ["a"]}, {"size": None}]
    reader = toy_dataset(tmp_path / "tokens", metas)
    assert decode_dataset(reader, toy.ToyTokenizer(), tmp_path / "out").failures[:-1] == ()
    assert {f"sample-00000{i}.png" for i in range(3)} <= files_below(tmp_path / "out")


@pytest.mark.parametrize(
    "size", [[9, 8], [0, 8], [-8, 8], [8], "8x8", [8.0, 8], [True, 8], [1 << 80, 8]]
)
def test_a_wrong_size_costs_one_sample(toy, tmp_path: Path, size) -> None:
    reader = toy_dataset(tmp_path / "tokens", [{"source": "a"}, {"source": "b", "size": size}, {}])
    report = decode_dataset(reader, toy.ToyTokenizer(), tmp_path / "out")
    assert report.decoded == 2
    assert report.failures[0].startswith("sample 1 (b): ")


def test_a_picture_bomb_is_refused(toy, tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir()
    header = Header(tokenizer="70" * 32, tokenizer_name="toy", codebook_sizes=(2,), packing="bits")
    sample = Sample(np.zeros((1 << 11, 1 << 11, 1), int), {"source": "a"})
    write_shard(tmp_path / "s", [sample], header)
    assert (tmp_path / "s").stat().st_size < 1 << 20
    report = decode_dataset(TokenReader(tmp_path / "s"), toy.ToyTokenizer(), tmp_path / "out")
    assert "more than 150,000,000 pixels" in report.failures[0]


def test_the_same_name_twice(toy, tmp_path: Path) -> None:
    names = ["a/x.jpg", "a/x.png", "a/X.PNG", "b", "b.png", "b.png/c.png", "a", "a/x-2.png"]
    reader = toy_dataset(tmp_path / "tokens", [{"source": name} for name in names])
    decode_dataset(reader, toy.ToyTokenizer(), tmp_path / "out")
    expected = [
        "a/x.png", "a/x-2.png", "a/X-3.png", "b.png", "b-2.png", "b.png-2/c.png", "a.png",
        "a/x-2-2.png",
    ]  # fmt: skip
    assert files_below(tmp_path / "out") == set(expected)
    for i, name in enumerate(expected):
        assert read_image(tmp_path / "out" / name).pixels[0, 0, 0] == i * 16 + 8


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from("aAé./-2\\png")), max_size=8))
def test_names_are_distinct_and_inside(names: list[str]) -> None:
    namer = Namer(".png")
    found = [namer.name(name) for name in names]
    assert len({name.casefold() for name in found}) == len(found)
    for name in found:
        assert name.endswith(".png")
        parts = name.split("/")
        assert not {"", ".", ".."} & set(parts)
        parents = {"/".join(parts[:i]).casefold() for i in range(1, len(parts))}
        assert not parents & {other.casefold() for other in found}


def test_nothing_is_written_through_a_link(toy, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "secret").write_bytes(b"keep")
    (tmp_path / "out/b.png").symlink_to(tmp_path / "secret")
    reader = toy_dataset(tmp_path / "tokens", [{"source": "a/x.png"}, {"source": "b.png"}])
    report = decode_dataset(reader, toy.ToyTokenizer(), tmp_path / "out", overwrite=True)
    assert report.decoded == 1
    assert "is a link" in report.failures[0]
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert (tmp_path / "secret").read_bytes() == b"keep"
    with pytest.raises(DataError, match="is a link"):
        make_parents(tmp_path / "out", "a/b/c.png")


def test_a_damaged_sample_costs_itself(encoded: Path, toy, tmp_path: Path) -> None:
    shutil.copytree(encoded, tmp_path / "tokens")
    path = tmp_path / "tokens/shard-00001.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    report = decode_dataset(TokenReader(tmp_path / "tokens"), toy.ToyTokenizer(), tmp_path / "out")
    assert (report.decoded, len(report.failures)) == (7, 1)
    assert report.failures[0].startswith("shard-00001.safetensors: sample 1: ")
    assert len(files_below(tmp_path / "out")) == 7


def test_a_lost_shard_costs_its_samples(encoded: Path, toy, tmp_path: Path) -> None:
    shutil.copytree(encoded, tmp_path / "tokens")
    (tmp_path / "tokens/shard-00000.safetensors").unlink()
    report = decode_dataset(TokenReader(tmp_path / "tokens"), toy.ToyTokenizer(), tmp_path / "out")
    assert (report.decoded, len(report.failures)) == (6, 2)


def test_another_tokenizer_is_refused(encoded: Path, toy, tmp_path: Path) -> None:
    tokenizer = toy.ToyTokenizer()
    tokenizer.fingerprint = "99"
    with pytest.raises(UsageError, match=r"made by tokenizer 'toy' \(fingerprint 707070707070\)"):
        decode_dataset(TokenReader(encoded), tokenizer, tmp_path / "out")
    with pytest.raises(UsageError, match=r"not by 'toy' \(99\) \(another one of that name\): name"):
        decode_dataset(TokenReader(encoded), tokenizer, tmp_path / "out")
    tokenizer.name = "toy-2"
    with pytest.raises(UsageError, match=r"not by 'toy-2' \(99\): name the folder"):
        decode_dataset(TokenReader(encoded), tokenizer, tmp_path / "out")


def test_existing_files_are_safe(encoded: Path, toy, tmp_path: Path) -> None:
    reader, tokenizer = TokenReader(encoded), toy.ToyTokenizer()
    (tmp_path / "mine").touch()
    with pytest.raises(UsageError, match="is not empty"):
        decode_dataset(reader, tokenizer, tmp_path)
    with pytest.raises(UsageError, match="is a file"):
        decode_dataset(reader, tokenizer, tmp_path / "mine")
    decode_dataset(reader, tokenizer, tmp_path, overwrite=True)
    assert len(files_below(tmp_path)) == 9


@pytest.mark.parametrize("count", [0, 3])
def test_num_codebooks_out_of_range(encoded: Path, toy, tmp_path: Path, count: int) -> None:
    with pytest.raises(UsageError, match="the tokens have 2"):
        decode_dataset(
            TokenReader(encoded), toy.ToyTokenizer(), tmp_path / "out", num_codebooks=count
        )


def test_a_full_disk_ends_the_run(encoded: Path, toy, tmp_path: Path, monkeypatch) -> None:
    def full(path, *arguments):
        raise VqtokError(f"{path}: cannot write the image: No space left on device")

    monkeypatch.setattr("vqtok.pipeline.images.write_image", full)
    with pytest.raises(VqtokError, match="No space left"):
        decode_dataset(TokenReader(encoded), toy.ToyTokenizer(), tmp_path / "out")
