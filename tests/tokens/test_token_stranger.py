"""A reader written from FORMAT.md alone, with numpy; of vqtok it uses the plain entropy decoder."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest

from vqtok.ops import adaptive
from vqtok.tokens import Header, Sample, verify, write_manifest, write_shard

TYPES = {"U8": "<u1", "U16": "<u2", "U32": "<u4", "I32": "<i4", "I64": "<i8"}


def stranger_reads(folder: Path):
    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert manifest["format"] == "vqtok.tokens"
    assert manifest["format_version"] in (1, 2)
    for shard in manifest["shards"]:
        assert "/" not in shard["file"]
        yield from stranger_reads_shard((folder / shard["file"]).read_bytes())


def stranger_understands(metadata):
    if "vqtok" in metadata:
        return json.loads(metadata["vqtok"])
    header = {"format_version": int(metadata.pop("vqtok.tokens"))}
    for key, text in metadata.items():
        is_json = key in ("codebook_sizes", "dims", "rate_weight")
        header[key] = json.loads(text) if is_json else text
    return {"dims": {"image": ["h", "w"], "audio": ["t", "c"]}[header["modality"]], **header}


def stranger_opens(index: bytes, header):
    d, q = len(header["dims"]), len(header["codebook_sizes"])
    sizes = [("plane_sizes", "U32", q)] if header["packing"] == "entropy" else []
    n, rest = divmod(len(index) - 20, 16 + 4 * d + 4 * (2 * q + 1 if sizes else q + 1))
    assert rest == 0
    parts = {}
    table = [("offsets", "I64", 0), ("meta_offsets", "I64", 0), ("shape", "I32", d)]
    for name, dtype, width in [*table, *sizes, ("crc32", "U32", q + 1), ("header_crc32", "U32", 0)]:
        count = n * width or (1 if name == "header_crc32" else n + 1)
        part = np.frombuffer(index, TYPES[dtype], count)
        parts[name] = part.reshape(n, width) if width else part
        index = index[part.nbytes :]
    return parts


def bits_of(size: int) -> int:
    return max(1, math.ceil(math.log2(size)))


def stranger_reads_shard(data: bytes):
    base = 8 + int.from_bytes(data[:8], "little")
    description = json.loads(data[8:base])
    header = stranger_understands(description.pop("__metadata__"))
    tensors = {}
    for name, entry in description.items():
        begin, end = entry["data_offsets"]
        flat = np.frombuffer(data[base + begin : base + end], TYPES[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"])
    if header["format_version"] == 2:
        tensors |= stranger_opens(tensors.pop("index").tobytes(), header)
    assert tensors["header_crc32"][0] == zlib.crc32(data[:base])
    tokens, meta = tensors["tokens"], tensors["meta"].tobytes()
    for i, dims in enumerate(tensors["shape"].tolist()):
        start, line_start = int(tensors["offsets"][i]), int(tensors["meta_offsets"][i])
        line = meta[line_start : meta.index(b"\n", line_start) + 1]
        sizes = tensors["plane_sizes"][i] if "plane_sizes" in tensors else np.zeros(0, np.uint32)
        crc = zlib.crc32(tensors["shape"][i].tobytes() + sizes.tobytes() + line)
        assert crc == tensors["crc32"][i, 0]
        planes = []
        for q, size in enumerate(header["codebook_sizes"]):
            count = math.prod(dims)
            if header["packing"] == "plain":
                stored = tokens[start : start + count]
                plane = stored.astype(np.int64)
            elif len(sizes) and sizes[q] < math.ceil(count * bits_of(size) / 8):
                assert sizes[q] >= count / 256
                stored = tokens[start : start + sizes[q]]
                grid = (math.prod(dims[:-1]), dims[-1])
                known = [plane.reshape(grid) for plane in planes] + [np.zeros(grid)]
                known = np.array(known, np.uint32)
                stream = stored.tobytes()
                if sizes[q] == math.ceil(count / 256):
                    stream = stream.rstrip(b"\0")
                assert adaptive.decode(known, size, stream)
                plane = known[-1].astype(np.int64)
            else:
                bits = bits_of(size)
                stored = tokens[start : start + math.ceil(count * bits / 8)]
                every = [int(byte) >> j & 1 for byte in stored for j in range(8)]
                plane = np.array(
                    [sum(every[k * bits + j] << j for j in range(bits)) for k in range(count)]
                )
            crc = zlib.crc32(stored.tobytes(), crc)
            assert crc == tensors["crc32"][i, q + 1]
            start += len(stored)
            planes.append(plane.reshape(dims))
        assert start == tensors["offsets"][i + 1]
        yield np.stack(planes, -1), json.loads(line)


def test_a_stranger_reads_a_dataset(dataset: Path, samples: list[Sample]) -> None:
    for expected, (codes, meta) in zip(samples, stranger_reads(dataset), strict=True):
        np.testing.assert_array_equal(codes, expected.codes)
        assert meta == expected.meta


@pytest.mark.parametrize("packing", ["plain", "bits", "entropy"])
def test_a_stranger_reads_other_widths(tmp_path: Path, packing: str) -> None:
    sizes = (1, 2, 3, 1024, 1025, 1 << 18)
    header = Header(
        tokenizer="f", tokenizer_name="n", codebook_sizes=sizes, modality="audio", packing=packing
    )
    rng = np.random.default_rng(0)
    samples = [
        Sample(rng.integers(0, sizes, (length, channels, len(sizes))))
        for length, channels in ((1, 1), (7, 1), (33, 2))
    ]
    samples.append(Sample(np.sort(samples[2].codes, axis=0) // 64))
    samples.append(Sample(np.zeros((900, 1, len(sizes)), np.int64)))
    write_manifest(tmp_path, header, [write_shard(tmp_path / "s", samples, header)])
    assert verify(tmp_path) == []
    for expected, (codes, meta) in zip(samples, stranger_reads(tmp_path), strict=True):
        np.testing.assert_array_equal(codes, expected.codes)
        assert meta == {}


def test_the_head_is_as_the_format_says(dataset: Path, header: Header) -> None:
    """What a stranger needs to rebuild a damaged head from the manifest."""
    manifest = json.loads((dataset / "manifest.json").read_bytes())
    data = (dataset / "a.safetensors").read_bytes()
    info = manifest["shards"][0]
    n, q, item = info["samples"], header.num_codebooks, 2 if header.packing == "plain" else 1
    table = [
        ("offsets", "I64", [n + 1], 8),
        ("meta_offsets", "I64", [n + 1], 8),
        ("shape", "I32", [n, 2], 4),
        *([("plane_sizes", "U32", [n, q], 4)] if header.packing == "entropy" else []),
        ("crc32", "U32", [n, q + 1], 4),
        ("header_crc32", "U32", [1], 4),
        ("tokens", {1: "U8", 2: "U16"}[item], [info["token_bytes"] // item], item),
        ("meta", "U8", [info["meta_bytes"]], 1),
    ]
    if header.format_version == 2:
        length = sum(math.prod(shape) * size for *_, shape, size in table[:-2])
        table = [("index", "U8", [length], 1), *table[-2:]]
    keys = ["format", "format_version", "tokenizer", "tokenizer_name", "codebook_sizes"]
    keys += ["modality", "packing", "dims"]
    keys += ["prior"] if header.packing == "entropy" else []
    said = {key: manifest[key] for key in keys}
    if header.format_version == 1:
        metadata = {"vqtok": json.dumps(said, separators=(",", ":"))}
    else:
        sizes = json.dumps(said["codebook_sizes"], separators=(",", ":"))
        metadata = {"vqtok.tokens": "2", **said, "codebook_sizes": sizes}
        for key in ("format", "format_version", "dims"):
            del metadata[key]
    description, end = {"__metadata__": metadata}, 0
    for name, dtype, shape, size in table:
        begin, end = end, end + math.prod(shape) * size
        description[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(description, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    assert data.startswith(len(text).to_bytes(8, "little") + text)
