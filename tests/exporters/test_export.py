"""What all exports promise."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from vqtok.cli import main
from vqtok.cli.export import TARGETS
from vqtok.errors import UsageError
from vqtok.exporters import EXPORTERS, export_dataset, find_layout
from vqtok.exporters.records import INFO, Record, grouped
from vqtok.tokens import Header, Sample, TokenReader
from vqtok.tokens.sequences import PRESETS, Vocabulary


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_command_line_knows_every_target() -> None:
    assert tuple(EXPORTERS) == TARGETS


@pytest.mark.parametrize("target", EXPORTERS)
def test_the_same_samples_make_the_same_bytes(target: str, dataset: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        export_dataset(TokenReader(dataset), tmp_path / name, target)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    info = json.loads((tmp_path / "a" / INFO).read_bytes())
    assert (info["format"], info["target"], info["samples"]) == ("vqtok.export", target, 9)
    assert (info["tokenizer"], info["codebook_sizes"]) == ("f" * 64, [5, 300, 16])


@pytest.mark.parametrize("target", EXPORTERS)
def test_a_damaged_sample_costs_itself_alone(
    target: str, tmp_path, write_tokens, samples, capsys
) -> None:
    tokens = write_tokens(tmp_path / "tokens", samples, (5, 300, 16), "bits")
    shard = tokens / "a.safetensors"
    data = bytearray(shard.read_bytes())
    data[data.index("phöto 1".encode())] ^= 1
    shard.write_bytes(data)
    command = ["export", str(tokens), str(tmp_path / "out"), "--to", target]
    assert main(command) == 1
    output = capsys.readouterr()
    assert "not exported: a.safetensors: sample 1: its codes, shape or metadata" in output.err
    assert "8 samples exported, 1 lost" in output.out
    assert json.loads((tmp_path / "out" / INFO).read_bytes())["samples"] == 8
    for name in ("tokens.jsonl", "samples.jsonl"):  # places in the dataset stay what they were
        if (tmp_path / "out" / name).exists():
            lines = (tmp_path / "out" / name).read_text().splitlines()
            assert [json.loads(line)["index"] for line in lines] == [0, *range(2, 9)]


@pytest.mark.parametrize("target", EXPORTERS)
def test_no_samples(target: str, tmp_path: Path, write_tokens) -> None:
    tokens = write_tokens(tmp_path / "tokens", [], (5,), "bits")
    assert export_dataset(TokenReader(tokens), tmp_path / "out", target).exported == 0


def test_fewer_codebooks(dataset: Path, samples, tmp_path: Path) -> None:
    export_dataset(TokenReader(dataset), tmp_path / "out", "npy", num_codebooks=1)
    line = json.loads((tmp_path / "out/samples.jsonl").read_text().splitlines()[4])
    assert line["file"] == "folder/phöto 4.npy"
    array = np.load(tmp_path / "out" / line["file"])
    np.testing.assert_array_equal(array, samples[4].codes[..., :1])
    assert array.dtype == np.uint8
    with pytest.raises(UsageError, match="num_codebooks is 4"):
        export_dataset(TokenReader(dataset), tmp_path / "2", "npy", num_codebooks=4)


@pytest.mark.parametrize(
    ("sizes", "dtype"),
    [((256,), "uint8"), ((2, 257), "uint16"), ((65537,), "int32"), ((1 << 32,), "int64")],
)
def test_the_smallest_type_that_torch_knows(tmp_path, write_tokens, sizes, dtype: str) -> None:
    codes = np.array([[[size - 1 for size in sizes]]])
    tokens = write_tokens(tmp_path / "tokens", [Sample(codes)] * 2, sizes, "plain")
    export_dataset(TokenReader(tokens), tmp_path / "out", "npy")
    array = np.load(tmp_path / "out/sample-000001.npy")
    assert array.dtype == dtype
    np.testing.assert_array_equal(array, codes)


@pytest.mark.parametrize(("size", "dtype"), [(65499, 8), (65500, 4)])
def test_megatron_takes_32_bits_from_65500_on(tmp_path, write_tokens, size: int, dtype) -> None:
    codes = np.array([[[size - 1]]])
    tokens = write_tokens(tmp_path / "tokens", [Sample(codes)] * 2, (size,), "plain")
    report = export_dataset(TokenReader(tokens), tmp_path / "out", "megatron")
    assert (tmp_path / "out/tokens.idx").read_bytes()[17] == dtype
    stored = np.fromfile(tmp_path / "out/tokens.bin", "<u2" if dtype == 8 else "<i4")
    assert stored.tolist() == [size - 1] * 2
    assert ["32 bits a token" in remark for remark in report.remarks] == [True] * (dtype == 4)


@pytest.mark.parametrize("preset", ["flat", "raster", "emu3"])
@pytest.mark.parametrize("target", ["npy", "megatron", "litdata"])
def test_a_layout_makes_tokens(preset: str, target: str, dataset, samples, tmp_path) -> None:
    out = tmp_path / "out"
    assert main(["export", str(dataset), str(out), "--to", target, "--layout", preset]) == 0
    layout = PRESETS[preset]((5, 300, 16))
    expected = [layout.tokens(sample.codes) for sample in samples]
    info = json.loads((out / INFO).read_bytes())
    assert info["layout"] == layout.to_json()
    assert info["vocabulary_size"] == layout.vocabulary_size
    if target == "megatron":
        found = np.fromfile(out / "tokens.bin", "<u2")
    elif target == "litdata":
        data = (out / "chunk-0-0.bin").read_bytes()
        found = np.frombuffer(data[4 + 4 * 10 :], "<u2")
    else:
        lines = (out / "samples.jsonl").read_text().splitlines()
        names = (json.loads(line)["file"] for line in lines)
        found = np.concatenate([np.load(out / name) for name in names])
    np.testing.assert_array_equal(found, np.concatenate(expected))


def test_layouts_from_files(dataset: Path, tmp_path: Path) -> None:
    header, sizes = TokenReader(dataset).header, (5, 300, 16)
    layout = PRESETS["raster"](sizes, 1000)
    path = tmp_path / "x.json"
    path.write_text(json.dumps(layout.to_json()))
    assert find_layout(str(path), header, sizes) == layout
    vocabulary = Vocabulary.build({"toy": ("raster", sizes), "other": ("flat", (7,))})
    path.write_text(json.dumps(vocabulary.to_json()))
    assert find_layout(str(path), header, sizes) == vocabulary.layouts["toy"]
    other = Vocabulary.build({"other": ("flat", (7,))})
    for text, message in (
        (json.dumps(other.to_json()), "no layout for tokenizer 'toy', only other"),
        ("{}", "not a sequence layout"),
        ("[", "not valid JSON"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            find_layout(str(path), header, sizes)
    with pytest.raises(UsageError, match=r"neither a preset \(flat, raster"):
        find_layout("nothing", header, sizes)
    with pytest.raises(UsageError, match=r"the layout is for codebooks of \[7\] codes"):
        export_dataset(TokenReader(dataset), tmp_path / "out", "npy", layout=PRESETS["flat"]((7,)))


def test_what_does_not_fit_a_layout_is_reported(dataset: Path, tmp_path: Path) -> None:
    layout = PRESETS["chameleon"]((5, 300, 16), 0, (5, 5))
    report = export_dataset(TokenReader(dataset), tmp_path / "out", "npy", layout=layout)
    assert report.exported + len(report.failures) == 9
    assert "sample 0 (folder/phöto 0.jpg): codes have shape" in report.failures[0]


def test_megatron_has_lines_of_tokens(dataset: Path, tmp_path: Path) -> None:
    layout = PRESETS["musicgen"]((5, 300, 16), 0, (None, None))
    with pytest.raises(UsageError, match=r"megatron: .* parallel"):
        export_dataset(TokenReader(dataset), tmp_path / "out", "megatron", layout=layout)
    assert os.listdir(tmp_path) == []


def test_only_an_export_is_replaced(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    reader = TokenReader(dataset)
    out.mkdir()
    export_dataset(reader, out, "mds")  # an empty folder will do
    before = contents(out)
    with pytest.raises(UsageError, match=r"holds an export; .* --overwrite"):
        export_dataset(reader, out, "npy")
    assert contents(out) == before
    export_dataset(reader, out, "npy", overwrite=True)
    assert not (out / "index.json").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    for place, message in (
        (tmp_path / "mine", "holds other files"),
        (tmp_path / "mine/file", "is a file"),
        (dataset, "holds other files"),
    ):
        with pytest.raises(UsageError, match=message):
            export_dataset(reader, place, "npy", overwrite=True)
    with pytest.raises(UsageError, match="no target 'zip'"):
        export_dataset(reader, tmp_path / "new", "zip")
    assert sorted(os.listdir(tmp_path)) == ["mine", "out"]


def test_an_export_does_not_replace_what_it_reads(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_dataset(TokenReader(dataset), out, "npy")
    inside = Path(shutil.copytree(dataset, out / "tokens"))
    before = contents(inside)
    for tokens in (inside, inside / "a.safetensors"):
        with pytest.raises(UsageError, match="which the export replaces"):
            export_dataset(TokenReader(tokens), out, "npy", overwrite=True)
    assert contents(inside) == before


def test_layouts_that_cannot_be_are_wrong_usage(tmp_path: Path) -> None:
    header = Header(tokenizer="f", tokenizer_name="toy", codebook_sizes=(1 << 31,))
    for name in PRESETS:
        with pytest.raises(UsageError, match=f"--layout {name} is not for this tokenizer"):
            find_layout(name, header, header.codebook_sizes)
    with pytest.raises(UsageError, match="neither a preset"):
        find_layout("x" * 300, header, (4,))


def test_a_full_disk_is_named(dataset: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """Writing to an open file fails without a name."""

    def full(folder, records, spec):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setitem(EXPORTERS, "npy", full)
    out = tmp_path / "out"
    assert main(["export", str(dataset), str(out), "--to", "npy"]) == 1
    assert f"{out}: No space left on device; free some" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_what_was_there(dataset: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out"
    export_dataset(TokenReader(dataset), out, "mds")
    before = contents(out)

    def broken(folder, records, spec):
        (folder / "half").touch()
        next(records)
        raise OSError("no space left")

    monkeypatch.setitem(EXPORTERS, "npy", broken)
    with pytest.raises(OSError, match="no space left"):
        export_dataset(TokenReader(dataset), out, "npy", overwrite=True)
    assert contents(out) == before
    assert os.listdir(tmp_path) == ["out"]


KILLED = """
import os, signal, sys
from vqtok.exporters import EXPORTERS, export_dataset
from vqtok.tokens import TokenReader
def killed(folder, records, spec):
    (folder / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)
EXPORTERS["npy"] = killed
export_dataset(TokenReader(sys.argv[1]), sys.argv[2], "npy")
"""


def test_what_a_killed_export_left_is_removed(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", KILLED, dataset, out], check=False)
    assert done.returncode == -9
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".out.tmp.")
    (tmp_path / (".other" + left.removeprefix(".out"))).mkdir()
    export_dataset(TokenReader(dataset), out, "npy")
    assert sorted(os.listdir(tmp_path)) == [".other" + left.removeprefix(".out"), "out"]


def test_records_are_grouped_by_size() -> None:
    records = [Record(i, np.zeros(size, np.uint8), {}) for i, size in enumerate((3, 4, 9, 2, 5, 1))]
    groups = list(grouped(records, 8, lambda record: record.array.tobytes()))
    assert [[len(item) for item in group] for group in groups] == [[3, 4], [9], [2, 5, 1]]


@pytest.mark.parametrize("target", ["parquet", "megatron", "litdata", "mds", "webdataset"])
def test_memory_does_not_grow(target: str, tmp_path, write_tokens, monkeypatch) -> None:
    """Files of at most 64 KiB of codes; 4 MB in all."""
    for name in ("litdata.CHUNK_BYTES", "mds.SHARD_BYTES", "webdataset.SHARD_BYTES",
                 "parquet.FILE_BYTES", "parquet.GROUP_BYTES"):  # fmt: skip
        monkeypatch.setattr(f"vqtok.exporters.{name}", 1 << 16)
    sample = Sample(np.arange(8192).reshape(64, 128, 1), {"source": "x"})
    tokens = write_tokens(tmp_path / "tokens", [sample] * 256, (8192,), "plain")
    reader = TokenReader(tokens)
    export_dataset(reader, tmp_path / "warm", target)
    tracemalloc.start()
    try:
        export_dataset(reader, tmp_path / "out", target)
        assert tracemalloc.get_traced_memory()[1] < 1_500_000
    finally:
        tracemalloc.stop()
    files = [path for path in (tmp_path / "out").iterdir() if path.stat().st_size > 10_000]
    assert len(files) == 1 if target == "megatron" else len(files) > 30


def test_pyarrow_is_optional(dataset: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match=r"pip install 'vqtok\[export\]'"):
        export_dataset(TokenReader(dataset), tmp_path / "out", "parquet")
