"""Files that lie, with right checksums: refused before anything is allocated for the lie."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqtok.errors import DataError
from vqtok.tokens import (
    Header,
    Sample,
    ShardReader,
    TokenReader,
    read_manifest,
    verify,
    write_shard,
)
from vqtok.tokens.header import parse_json

TYPES = {"U8": "u1", "U16": "<u2", "U32": "<u4", "I32": "<i4", "I64": "<i8", "F32": "<f4"}
NAMES = {"u1": "U8", "u2": "U16", "u4": "U32", "i4": "I32", "i8": "I64", "f4": "F32"}


class Forgery:
    """A valid shard of four samples that a test may change before its checksums are made."""

    def __init__(self) -> None:
        self.header: dict[str, Any] = {
            "format": "vqtok.tokens", "format_version": 1, "tokenizer": "f", "tokenizer_name": "n",
            "codebook_sizes": [5], "modality": "image", "packing": "plain", "dims": ["h", "w"],
        }  # fmt: skip
        self.metas = [b'{"source":"%d"}\n' % i for i in range(4)]
        self.shape: Any = np.full((4, 2), 2, "<i4")
        self.offsets: Any = np.arange(5, dtype="<i8") * 4
        self.meta_offsets: Any = None
        self.tokens: Any = np.arange(16, dtype="u1") % 5
        self.crc32: Any = None
        self.extra: dict[str, Any] = {}
        self.edit: Callable[[dict[str, Any]], object] = lambda description: None
        self.text: bytes | None = None
        self.tail = b""

    def write(self, path: Path) -> Path:
        meta = b"".join(self.metas)
        if self.meta_offsets is None:
            self.meta_offsets = np.cumsum([0, *map(len, self.metas)], dtype="<i8")
        if self.crc32 is None:
            self.crc32 = self._crcs(meta)
        tensors = {
            "offsets": self.offsets, "meta_offsets": self.meta_offsets, "shape": self.shape,
            "crc32": self.crc32, "header_crc32": np.zeros(1, "<u4"), "tokens": self.tokens,
            "meta": np.frombuffer(meta, "u1"), **self.extra,
        }  # fmt: skip
        tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        description: dict[str, Any] = {"__metadata__": {"vqtok": json.dumps(self.header)}}
        end = 0
        for name, tensor in tensors.items():
            begin, end = end, end + tensor.nbytes
            description[name] = {
                "dtype": NAMES[tensor.dtype.str[1:]],
                "shape": list(tensor.shape),
                "data_offsets": [begin, end],
            }
        self.edit(description)
        text = self.text or json.dumps(description).encode()
        text += b" " * (-len(text) % 8)
        head = len(text).to_bytes(8, "little") + text
        tensors["header_crc32"] = np.array([zlib.crc32(head)], "<u4")
        path.write_bytes(head + b"".join(map(np.ndarray.tobytes, tensors.values())) + self.tail)
        return path

    def _crcs(self, meta: bytes) -> Any:
        """Right checksums for whatever the offsets and shapes point to."""
        rows = []
        for i in range(4):
            begin = int(self.meta_offsets[i])
            line = meta[begin : meta.find(b"\n", begin) + 1]
            crc = zlib.crc32(line, zlib.crc32(self.shape[i].tobytes()))
            start, count = int(self.offsets[i]), int(np.prod(self.shape[i].astype(object)))
            rows.append([crc, zlib.crc32(self.tokens[start : start + count], crc)])
        return np.array(rows, "<u4")


def test_the_forgery_itself_is_sound(tmp_path: Path) -> None:
    path = Forgery().write(tmp_path / "x")
    assert verify(path) == []
    assert ShardReader(path)[3].codes[..., 0].tolist() == [[2, 3], [4, 0]]


def head_lie(change: Callable[[Forgery], object], message: str) -> Any:
    return pytest.param(change, message, id=message)


def describe(name: str, **entry: Any) -> Callable[[Forgery], object]:
    def change(forgery: Forgery) -> None:
        forgery.edit = lambda description: description.setdefault(name, {}).update(entry)

    return change


def metadata(**entries: Any) -> Callable[[Forgery], object]:
    """The header in the form of version 2, with these entries in place of right ones."""

    def change(forgery: Forgery) -> None:
        said = {key: forgery.header[key] for key in ("tokenizer", "tokenizer_name", "modality")}
        right = {"vqtok.tokens": "2", **said, "packing": "plain", "codebook_sizes": "[5]"}
        found = {key: value for key, value in {**right, **entries}.items() if value is not None}
        forgery.edit = lambda description: description.update(__metadata__=found)

    return change


def header(**entry: Any) -> Callable[[Forgery], object]:
    return lambda forgery: forgery.header.update(entry)


def attribute(name: str, value: Any) -> Callable[[Forgery], object]:
    return lambda forgery: setattr(forgery, name, value)


HUGE = (1 << 63) - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        head_lie(describe("tokens", shape=[HUGE]), "do not hold shape"),
        head_lie(describe("tokens", shape=[1 << 62, 4]), "do not hold shape .*4611686018427387904"),
        head_lie(describe("tokens", shape=[HUGE + 1]), "are malformed"),
        head_lie(describe("tokens", shape=[-16]), "shape .* are malformed"),
        head_lie(describe("tokens", shape=[16.0]), "16.0.* are malformed"),
        head_lie(describe("tokens", shape=[1] * 9 + [16]), "1, 1, 1.* are malformed"),
        head_lie(describe("tokens", data_offsets=[0, 16]), "overlaps another"),
        head_lie(describe("tokens", data_offsets=[0, HUGE]), "do not hold shape .16. of U8"),
        head_lie(describe("tokens", data_offsets=[16, 0]), r"\[16, 0\] do not hold"),
        head_lie(describe("tokens", data_offsets=[1]), r"\[1\] are malformed"),
        head_lie(describe("tokens", dtype="F64"), "dtype 'F64' is not one of"),
        head_lie(describe("tokens", dtype=["U8"]), "is not one of"),
        head_lie(attribute("tokens", np.zeros(16, "<u2")), "expected U8"),
        head_lie(attribute("tokens", np.zeros((4, 4), "u1")), "not one axis"),
        head_lie(attribute("tokens", None), "tensor 'tokens' is missing"),
        head_lie(attribute("offsets", np.arange(4, dtype="<i8")), "'offsets' is I64 .4., expected"),
        head_lie(attribute("offsets", np.arange(5, dtype="<i4")), "'offsets' is I32 .5., expected"),
        head_lie(attribute("shape", np.full((4, 3), 2, "<i4")), r"'shape' is I32 .4, 3., exp"),
        head_lie(attribute("crc32", np.zeros((4, 1), "<u4")), "'crc32' is U32"),
        head_lie(attribute("tail", b"\0"), "the tensors end at byte"),
        head_lie(attribute("text", b"[]"), "not a JSON object"),
        head_lie(attribute("text", b"{}"), "the tensors end at byte 16"),
        head_lie(attribute("text", b'{"a":1}'), "tensor 'a': not a JSON object"),
        head_lie(attribute("text", b'{"a":{},"a":{}}'), "a key is repeated"),
        head_lie(attribute("text", b'{"\xff":{}}'), "not valid JSON .*utf-8"),
        head_lie(attribute("text", b"[" * 100_000), "not valid JSON"),
        head_lie(attribute("text", b'{"a":' + b"9" * 100_000 + b"}"), "not valid JSON"),
        head_lie(attribute("text", b'{"__metadata__":3}'), "__metadata__ is not"),
        head_lie(metadata(), "tensor 'index' is missing"),
        head_lie(metadata(**{"vqtok.tokens": None}), "not a vqtok token file"),
        head_lie(metadata(**{"vqtok.tokens": "two"}), "vqtok.tokens: not valid JSON"),
        head_lie(metadata(**{"vqtok.tokens": "3"}), "install a newer vqtok"),
        head_lie(metadata(tokenizer=None), "the header lacks 'tokenizer'"),
        head_lie(metadata(tokenizer=3), "not text"),
        head_lie(metadata(codebook_sizes="5"), "must be non-empty lists"),
        head_lie(metadata(codebook_sizes="[5"), "codebook_sizes: not valid JSON"),
        head_lie(metadata(codebook_sizes=None), "the header lacks 'codebook_sizes'"),
        head_lie(metadata(modality="smell"), "modality must be one of"),
        head_lie(metadata(modality=None), "the header lacks 'modality'"),
        head_lie(metadata(dims="[]"), "must be non-empty lists"),
        head_lie(metadata(packing="zip"), "packing must be one of"),
        head_lie(metadata(rate_weight="-1"), "rate_weight must be in"),
        head_lie(metadata(rate_weight='"1"'), "rate_weight must be a number"),
        head_lie(header(format="other"), "not a vqtok token file"),
        head_lie(header(format_version=3), "install a newer vqtok"),
        head_lie(header(format_version=0), "no format version 0"),
        head_lie(header(packing="zip"), "packing must be one of"),
        head_lie(header(packing="entropy"), "the header lacks .prior."),
        head_lie(header(packing=[]), "packing must be"),
        head_lie(header(codebook_sizes=[]), "non-empty"),
        head_lie(header(codebook_sizes=[True]), "codebook_sizes must be integers"),
        head_lie(header(codebook_sizes=[1 << 40]), "codebook_sizes must be integers in"),
        head_lie(header(codebook_sizes="55"), "must be non-empty lists"),
        head_lie(header(dims=["h", 3]), "names of axes"),
    ],
)  # fmt: skip
def test_a_lying_head_refuses_the_shard(tmp_path: Path, change, message: str) -> None:
    forgery = Forgery()
    forgery.crc32 = np.zeros((4, 2), "<u4")
    change(forgery)
    path = forgery.write(tmp_path / "x.safetensors")
    with pytest.raises(DataError, match=rf"x\.safetensors: .*{message}"):
        ShardReader(path)
    assert verify(path)


def test_missing_header_fields(tmp_path: Path) -> None:
    for name in ("tokenizer", "codebook_sizes", "dims", "packing"):
        forgery = Forgery()
        del forgery.header[name]
        with pytest.raises(DataError, match=f"lacks '{name}'"):
            ShardReader(forgery.write(tmp_path / "x"))


@pytest.mark.parametrize("size", [0, 7, 8])
def test_tiny_files(tmp_path: Path, size: int) -> None:
    (tmp_path / "x").write_bytes(b"\xff" * size)
    with pytest.raises(DataError, match="x: "):
        ShardReader(tmp_path / "x")


def test_an_unknown_tensor_does_no_harm(tmp_path: Path) -> None:
    forgery = Forgery()
    forgery.extra["future"] = np.zeros(3, "u1")
    assert verify(forgery.write(tmp_path / "x")) == []


@pytest.mark.parametrize(
    ("change", "bad", "message"),
    [
        ({"offsets": [0, 4, 4, 12, 16]}, {2}, "overlap another"),
        ({"offsets": [0, 0, 0, 0, 0]}, {1, 2, 3}, "overlap another"),
        ({"offsets": [0, 4, 2, 12, 16]}, {2}, "overlap another"),
        ({"offsets": [0, 4, HUGE, 12, 16]}, {2}, "do not fit"),
        ({"offsets": [0, 4, -4, 12, 16]}, {2}, "do not fit"),
        ({"shape": [[2, 2], [2, 2], [1 << 30, 1 << 30], [2, 2]]}, {2}, "do not fit"),
        ({"shape": [[2, 2], [2, 2], [0, 2], [2, 2]]}, {2}, "its shape is"),
        ({"shape": [[2, 2], [2, 2], [-2, -2], [2, 2]]}, {2}, "its shape is"),
        ({"meta_offsets": [0, 15, -1, 45, 60]}, {2}, "metadata start at byte"),
        ({"meta_offsets": [0, 15, HUGE, 45, 60]}, {2}, "metadata start at byte"),
        ({"meta_offsets": [0, 15, 20, 45, 60]}, {2}, "inside another sample's"),
        ({"tokens": [0] * 8 + [5] + [0] * 7}, {2}, "code 5 in codebook 0 of size 5"),
    ],
)
def test_a_lying_index_refuses_the_sample(tmp_path: Path, change, bad: set[int], message) -> None:
    forgery = Forgery()
    for name, value in change.items():
        setattr(forgery, name, np.array(value, getattr(Forgery(), name, None).dtype
                                        if name != "meta_offsets" else "<i8"))  # fmt: skip
    sound = Forgery()
    sound.write(tmp_path / "sound")
    forgery.crc32 = sound.crc32 if "tokens" not in change else None
    path = forgery.write(tmp_path / "x.safetensors")
    reader = TokenReader(path)
    for index in range(4):
        if index in bad:
            with pytest.raises(DataError, match=rf"x\.safetensors: sample {index}: .*{message}"):
                reader[index]
        else:
            assert reader[index].meta == {"source": str(index)}
    assert bad <= {problem.sample for problem in verify(path)}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"\xff\n", "not valid JSON"),
        (b"{\n", "not valid JSON"),
        (b"[" * 99999 + b"\n", "not valid JSON"),
        (b'{"a":' + b"9" * 9999 + b"}\n", "not valid JSON"),
        (b'{"a":NaN}\n', "NaN"),
        (b'{"a":1,"a":2}\n', "repeated"),
        (b"[]\n", "not a JSON object"),
        (b"x" * (1 << 21) + b"\n", "do not end"),
    ],
)
def test_bad_metadata_refuses_the_sample(tmp_path: Path, line: bytes, message: str) -> None:
    forgery = Forgery()
    forgery.metas[1] = line
    reader = ShardReader(forgery.write(tmp_path / "x"))
    for read in (reader.read, reader.meta):
        with pytest.raises(DataError, match=f"x: sample 1: .*{message}"):
            read(1)
    assert reader.meta(2) == {"source": "2"}


def test_padding_bits_must_be_zero(tmp_path: Path) -> None:
    forgery = Forgery()
    forgery.header["packing"] = "bits"
    forgery.shape = np.full((4, 2), 1, "<i4")
    forgery.offsets = np.arange(5, dtype="<i8")
    forgery.tokens = np.array([1, 2, 3 + 8, 4], "u1")
    path = forgery.write(tmp_path / "x")
    assert ShardReader(path)[3].codes.item() == 4
    with pytest.raises(DataError, match="sample 2: the padding bits of codebook 0"):
        ShardReader(path)[2]


def test_claims_are_refused_before_allocating(tmp_path: Path) -> None:
    forgery = Forgery()
    forgery.shape = np.array([[2, 2], [1 << 30, 1 << 30], [2, 2], [2, 2]], "<i4")
    forgery.crc32 = np.zeros((4, 2), "<u4")
    path = forgery.write(tmp_path / "x")
    length = (1 << 60).to_bytes(8, "little")
    (tmp_path / "y").write_bytes(length + path.read_bytes()[8:])
    tracemalloc.start()
    with pytest.raises(DataError, match="do not fit"):
        ShardReader(path)[1]
    with pytest.raises(DataError, match=r"not a token file, .* claims"):
        ShardReader(tmp_path / "y")
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def edit_manifest(folder: Path, **entries: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    shard = entries.pop("shard", {})
    manifest.update(entries)
    manifest["shards"][0].update(shard)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"shard": {"file": "../a.safetensors"}}, "not a plain file name"),
        ({"shard": {"file": "/etc/passwd"}}, "not a plain file name"),
        ({"shard": {"file": ".."}}, "not a plain file name"),
        ({"shard": {"file": None}}, "not a plain file name"),
        ({"shard": {"file": "b.safetensors"}}, "listed twice"),
        ({"shard": {"samples": 1 << 80}}, "not a count"),
        ({"shard": {"samples": -1}}, "not a count"),
        ({"shard": {"samples": 4}}, "samples is 5, the shards hold 6"),
        ({"shard": {"sha256": 1}}, "sha256 is not a string"),
        ({"samples": 6}, "samples is 6"),
        ({"shards": [[]]}, "a shard entry is not"),
        ({"errors": -1}, "errors -1"),
        ({"format": "x"}, "not a vqtok token file"),
        ({"codebook_sizes": [0]}, "codebook_sizes must be"),
    ],
)
def test_lying_manifests_are_refused(dataset: Path, entries, message: str) -> None:
    if "shards" in entries:
        manifest = json.loads((dataset / "manifest.json").read_text())
        (dataset / "manifest.json").write_text(json.dumps(manifest | entries))
    else:
        edit_manifest(dataset, **entries)
    with pytest.raises(DataError, match=rf"manifest\.json: .*{message}"):
        TokenReader(dataset)
    assert [problem.file for problem in verify(dataset)] == ["manifest.json"]


def test_a_manifest_that_miscounts_a_shard(dataset: Path) -> None:
    edit_manifest(dataset, samples=6, shard={"samples": 4})
    with pytest.raises(DataError, match=r"a\.safetensors: 3 samples, the manifest says 4"):
        TokenReader(dataset)[0]
    assert any("the manifest says 4" in str(problem) for problem in verify(dataset))


def test_a_folder_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has not finished"):
        read_manifest(tmp_path)
    assert [problem.file for problem in verify(tmp_path)] == ["manifest.json"]


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_json_never_raises_anything_else(data: bytes) -> None:
    with contextlib.suppress(DataError):
        parse_json(data, "here")


@settings(deadline=None)
@given(position=st.integers(0, 1 << 20), junk=st.binary(min_size=1, max_size=16))
def test_overwritten_bytes_never_crash_a_reader(
    tmp_path_factory: pytest.TempPathFactory, position: int, junk: bytes
) -> None:
    path = Forgery().write(tmp_path_factory.mktemp("junk") / "x")
    data = bytearray(path.read_bytes())
    position %= len(data)
    data[position : position + len(junk)] = junk
    path.write_bytes(data)
    try:
        reader = ShardReader(path)
    except DataError:
        return
    for index in range(len(reader)):
        with contextlib.suppress(DataError):
            reader[index]


@pytest.mark.parametrize("moved", [-24, -4, 4])
def test_an_index_of_a_wrong_size_refuses_the_shard(tmp_path: Path, moved: int) -> None:
    """Format version 2, with right checksums."""
    path = tmp_path / "x"
    header = Header(
        tokenizer="f", tokenizer_name="n", codebook_sizes=(5,), packing="bits", format_version=2
    )
    write_shard(path, [Sample(np.zeros((9, 9, 1), np.int64))] * 2, header)
    data = path.read_bytes()
    base = 8 + int.from_bytes(data[:8], "little")
    description = json.loads(data[8:base])
    index, tokens = description["index"], description["tokens"]
    end = index["data_offsets"][1] + moved
    index |= {"shape": [end], "data_offsets": [0, end]}
    begin, last = end, tokens["data_offsets"][1]
    tokens |= {"shape": [last - begin], "data_offsets": [begin, last]}
    text = json.dumps(description, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    rest = bytearray(data[base:])
    rest[end - 4 : end] = zlib.crc32(head).to_bytes(4, "little")
    path.write_bytes(head + rest)
    with pytest.raises(DataError, match=f"x: an index of {end} bytes is of no samples"):
        ShardReader(path)


def test_the_index_of_another_version_is_no_index(tmp_path: Path) -> None:
    forgery = Forgery()
    forgery.header["format_version"] = 2
    with pytest.raises(DataError, match="tensor 'index' is missing"):
        ShardReader(forgery.write(tmp_path / "x"))
    forgery = Forgery()
    forgery.extra["index"] = np.zeros(3, "u1")  # a name that version 1 does not know
    assert ShardReader(forgery.write(tmp_path / "y"))[3].codes[..., 0].tolist() == [[2, 3], [4, 0]]
