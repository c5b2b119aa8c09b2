from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from vqtok.tokens import Header, Sample, ShardReader, TokenReader, verify, write_shard

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec=None)),
    lambda children: st.lists(children, max_size=3)
    | st.dictionaries(st.text(st.characters(codec=None), max_size=8), children, max_size=3),
    max_leaves=6,
)  # fmt: skip


@st.composite
def datasets(draw: st.DrawFn) -> tuple[Header, list[Sample]]:
    packing = draw(st.sampled_from(["plain", "bits", "entropy"]))
    largest = 1 << (20 if packing == "entropy" else 32)
    sizes = draw(
        st.lists(st.integers(1, largest) | st.integers(1, 1 << 11), min_size=1, max_size=4)
    )
    modality = draw(st.sampled_from(["image", "audio"]))
    header = Header(
        tokenizer=draw(st.text(max_size=10)),
        tokenizer_name="toy",
        codebook_sizes=tuple(sizes),
        modality=modality,
        packing=packing,
    )
    samples = []
    for _ in range(draw(st.integers(0, 4))):
        dims = draw(
            st.lists(st.integers(1, 6), min_size=len(header.dims), max_size=len(header.dims))
        )
        rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
        planes = [rng.integers(0, size, dims) for size in sizes]
        if draw(st.booleans()):  # a plane that can be coded
            planes[-1][:] = planes[-1].flat[0]
        meta = draw(st.dictionaries(st.text(max_size=5), JSON, max_size=3))
        samples.append(Sample(np.stack(planes, -1), meta))
    return header, samples


@settings(deadline=None)
@given(datasets())
def test_samples_come_back(tmp_path_factory: pytest.TempPathFactory, data) -> None:
    header, samples = data
    path = tmp_path_factory.mktemp("shard") / "x.safetensors"
    info = write_shard(path, samples, header)
    reader = ShardReader(path, info, header)
    assert not reader.repaired
    assert reader.header == header
    assert len(reader) == info.samples == len(samples)
    assert info.bytes == path.stat().st_size
    for index, sample in enumerate(samples):
        for count in range(1, header.num_codebooks + 1):
            found = reader.read(index, count)
            assert found.codes.dtype == np.int64
            assert found.codes.flags.c_contiguous
            np.testing.assert_array_equal(found.codes, sample.codes[..., :count])
            assert found.meta == reader.meta(index) == sample.meta
    assert verify(path) == []


def test_plain_safetensors_reads_a_shard(tmp_path: Path, header: Header, samples) -> None:
    path = tmp_path / "x.safetensors"
    write_shard(path, samples, header)
    tensors = load_file(path)
    if header.format_version == 2:
        assert set(tensors) == {"index", "tokens", "meta"}
        return
    codes = sum(math.prod(sample.codes.shape) for sample in samples)
    names = {"offsets", "meta_offsets", "shape", "crc32", "header_crc32", "tokens", "meta"}
    assert set(tensors) == names | ({"plane_sizes"} if header.packing == "entropy" else set())
    assert tensors["shape"].tolist() == [list(sample.codes.shape[:-1]) for sample in samples]
    if header.packing == "plain":
        assert tensors["tokens"].dtype == np.uint16
        assert tensors["offsets"][-1] == len(tensors["tokens"]) == codes
        first = np.moveaxis(samples[0].codes, -1, 0)
        np.testing.assert_array_equal(tensors["tokens"][: first.size], first.ravel())
    else:
        assert tensors["tokens"].dtype == np.uint8
        assert tensors["offsets"][-1] == len(tensors["tokens"]) < codes * 2


@pytest.mark.parametrize(
    ("sizes", "dtype"),
    [((256,), "U8"), ((257,), "U16"), ((2, 65536), "U16"), ((65537,), "U32"), ((1 << 32,), "U32")],
)
def test_plain_tier_takes_the_smallest_type(tmp_path: Path, sizes, dtype: str) -> None:
    header = Header(tokenizer="f", tokenizer_name="n", codebook_sizes=sizes, modality="audio")
    codes = np.array([[[size - 1 for size in sizes]], [[0 for _ in sizes]]])
    write_shard(tmp_path / "x", [Sample(codes)], header)
    np.testing.assert_array_equal(ShardReader(tmp_path / "x")[0].codes, codes)
    assert f'"tokens":{{"dtype":"{dtype}"'.encode() in (tmp_path / "x").read_bytes()


def test_the_same_samples_give_the_same_bytes(tmp_path: Path, header: Header, samples) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_shard(tmp_path / name / "x", iter(samples), header)
    assert (tmp_path / "one/x").read_bytes() == (tmp_path / "two/x").read_bytes()
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["x"]


def test_large_shards_wait_on_disk(tmp_path, header, samples, monkeypatch) -> None:
    write_shard(tmp_path / "in memory", samples, header)
    monkeypatch.setattr("vqtok.tokens.writer.MAX_BUFFERED", 1)
    write_shard(tmp_path / "on disk", samples, header)
    assert (tmp_path / "on disk").read_bytes() == (tmp_path / "in memory").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["in memory", "on disk"]


def test_a_dataset_reads_as_one_sequence(dataset: Path, header: Header, samples) -> None:
    reader = TokenReader(dataset)
    assert (len(reader), reader.header) == (5, header)
    for expected, found in zip(samples, reader, strict=True):
        np.testing.assert_array_equal(found.codes, expected.codes)
        assert found.meta == expected.meta
    np.testing.assert_array_equal(reader[-1].codes, samples[-1].codes)
    assert reader.meta(4) == samples[4].meta
    for index in (5, -6):
        with pytest.raises(IndexError):
            reader[index]
    assert len(TokenReader(dataset / "b.safetensors")) == 2


def test_a_reader_can_be_pickled(dataset: Path, samples) -> None:
    reader = TokenReader(dataset)
    reader[0]
    copy = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(copy[4].codes, samples[4].codes)


def test_few_shards_stay_open(dataset: Path, samples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqtok.tokens.reader.MAX_OPEN_SHARDS", 1)
    reader = TokenReader(dataset)
    for index in (0, 4, 1, 3):
        np.testing.assert_array_equal(reader[index].codes, samples[index].codes)
        assert len(reader._shards) == 1


@pytest.mark.parametrize("count", [0, 4, -1])
def test_num_codebooks_out_of_range(dataset: Path, count: int) -> None:
    with pytest.raises(ValueError, match="the dataset has 3"):
        TokenReader(dataset).read(0, count)


@pytest.mark.parametrize(
    ("codes", "meta", "message"),
    [
        (np.zeros((2, 2, 2), int), {}, r"expected \[h, w, 3\]"),
        (np.zeros((2, 3), int), {}, r"expected \[h, w, 3\]"),
        (np.zeros((0, 2, 3), int), {}, r"expected \[h, w, 3\]"),
        (np.zeros((2, 2, 3)), {}, "not integers"),
        (np.full((2, 2, 3), 5), {}, "codebook 0 span"),
        (np.full((2, 2, 3), -1), {}, "codebook 0 span"),
        (np.zeros((2, 2, 3), int), {"x": math.nan}, "cannot be written as JSON"),
        (np.zeros((2, 2, 3), int), {"x": object()}, "cannot be written as JSON"),
        (np.zeros((2, 2, 3), int), {"x": "y" * (1 << 20)}, "bytes of metadata"),
        (np.zeros((2, 2, 3), int), [], "must be a mapping"),
    ],
)
def test_wrong_samples_are_refused(tmp_path, header, codes, meta, message: str) -> None:
    good = Sample(np.zeros((1, 1, 3), int))
    with pytest.raises(ValueError, match=f"sample 1: .*{message}"):
        write_shard(tmp_path / "x", [good, Sample(codes, meta)], header)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"codebook_sizes": ()}, {"codebook_sizes": (0,)}, {"codebook_sizes": ((1 << 32) + 1,)},
        {"codebook_sizes": (2.0,)}, {"packing": "zip"}, {"modality": "smell"},
        {"format_version": 3}, {"dims": ("",)}, {"tokenizer": None},
    ],
)  # fmt: skip
def test_wrong_headers_are_refused(change) -> None:
    fields = {"tokenizer": "f", "tokenizer_name": "n", "codebook_sizes": (2,)} | change
    with pytest.raises(ValueError, match=f"{next(iter(change))}|version"):
        Header(**fields)


@pytest.mark.parametrize(
    ("grid", "sizes", "percent"),
    [((64, 96), (1024,) * 4, 0.5), ((32, 32), (1024,), 7)],
)
def test_overhead_at_1000_samples(tmp_path: Path, grid, sizes, percent: float) -> None:
    header = Header(tokenizer="f" * 64, tokenizer_name="n", codebook_sizes=sizes, packing="bits")
    codes = np.zeros((*grid, len(sizes)), np.int64)
    size = [8 * side for side in grid]
    samples = (
        Sample(codes, {"source": f"n01440764/{i:08d}.jpg", "size": size}) for i in range(1000)
    )
    info = write_shard(tmp_path / "x", samples, header)
    payload = 1000 * math.prod(grid) * len(sizes) * 10 // 8
    assert info.token_bytes == payload
    assert info.bytes / payload - 1 < percent / 100


def test_reading_needs_no_torch() -> None:
    code = "import sys, vqtok.tokens; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("index", [slice(0, 2), 1.0, "0", None])
def test_an_index_is_an_integer(dataset: Path, samples, index) -> None:
    reader = TokenReader(dataset)
    with pytest.raises(TypeError, match="samples are read one by one, by an integer, not by "):
        reader[index]
    np.testing.assert_array_equal(reader[np.int64(4)].codes, samples[4].codes)


def test_codes_and_dims_alone(dataset: Path, samples: list[Sample]) -> None:
    reader = TokenReader(dataset)
    assert reader.dims().tolist() == [list(sample.codes.shape[:-1]) for sample in samples]
    for i, sample in enumerate(samples):
        np.testing.assert_array_equal(reader.codes(i), sample.codes)
        np.testing.assert_array_equal(reader.codes(i, 2), sample.codes[..., :2])


def test_dims_of_a_missing_shard_are_zero(dataset: Path, samples: list[Sample]) -> None:
    (dataset / "b.safetensors").unlink()
    assert TokenReader(dataset).dims()[3:].tolist() == [[0, 0]] * 2
