from __future__ import annotations

import errno
import json
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from vqtok.errors import DataError, UsageError
from vqtok.media import list_sources, read_image, write_image
from vqtok.pipeline import Plan, encode_dataset, make_plan
from vqtok.pipeline.workspace import open_workspace
from vqtok.tokens import TokenReader, read_manifest, verify, write_shard


def test_every_image_is_in_the_dataset(encoded: Path, photos: Path, toy) -> None:
    reader, tokenizer = TokenReader(encoded), toy.ToyTokenizer()
    sources = [source for source in list_sources(photos) if source.uri[6:] not in BAD]
    assert len(reader) == len(sources) == 8
    for sample, source in zip(reader, sources, strict=True):
        pixels = read_image(source).pixels
        assert sample.meta == {"source": source.uri, "size": list(pixels.shape[:2])}
        images = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        np.testing.assert_array_equal(sample.codes, tokenizer.encode(images)[0].numpy())
    assert (reader.header.tokenizer, reader.header.codebook_sizes) == ("70" * 32, (16, 50))
    assert verify(encoded) == []


BAD = ("bad.png", "empty.jpg")


def test_bad_inputs_are_listed(encoded: Path) -> None:
    lines = [json.loads(line) for line in (encoded / "errors.jsonl").read_bytes().splitlines()]
    assert [line["source"] for line in lines] == ["day 0/bad.png", "day 1/empty.jpg"]
    assert "not an image" in lines[0]["error"]
    assert lines[1]["error"] == "the file is empty"
    assert read_manifest(encoded).errors == 2


def test_nothing_else_is_left(encoded: Path) -> None:
    shards = [f"shard-{task:05d}.safetensors" for task in range(4)]
    assert sorted(os.listdir(encoded)) == sorted(["errors.jsonl", "manifest.json", *shards])


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_workers_do_not_change_the_bytes(
    toy, photos, encoded, tmp_path, folder_contents, workers: int
) -> None:
    toy.encode(str(photos), str(tmp_path / "out"), workers=workers)
    assert folder_contents(tmp_path / "out") == folder_contents(encoded)


def test_notes_are_kept(toy, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("CMYK", (9, 9)).save(tmp_path / "x.jpg")
    toy.encode(str(tmp_path / "x.jpg"), str(tmp_path / "out"))
    assert TokenReader(tmp_path / "out").meta(0) == {
        "source": "x.jpg",
        "size": [9, 9],
        "notes": ["CMYK was converted without a colour profile"],
    }


def test_fewer_codebooks_and_the_other_packing(toy, photos, encoded, tmp_path) -> None:
    toy.encode(str(photos), str(tmp_path / "out"), num_codebooks=1, packing="plain")
    for few, every in zip(TokenReader(tmp_path / "out"), TokenReader(encoded), strict=True):
        np.testing.assert_array_equal(few.codes, every.codes[..., :1])
    assert verify(tmp_path / "out") == []


def test_inputs_of_one_name_are_both_kept(toy, tmp_path: Path) -> None:
    for folder, value in (("a", 10), ("b", 200)):
        (tmp_path / folder).mkdir()
        write_image(tmp_path / folder / "x.png", np.full((8, 8, 3), value, np.uint8))
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        archive.add(tmp_path / "a/x.png", "x.png")
        archive.add(tmp_path / "b/x.png", "../x.png")
    toy.encode(str(tmp_path / "t.tar"), str(tmp_path / "out"))
    samples = list(TokenReader(tmp_path / "out"))
    assert [sample.meta["source"] for sample in samples] == ["t.tar/x.png"] * 2
    assert [sample.codes[0, 0, 0] for sample in samples] == [0, 12]


def test_running_again_changes_nothing(toy, photos, encoded, tmp_path, folder_contents) -> None:
    shutil.copytree(encoded, tmp_path / "out")
    plan = make_plan(list_sources(photos), toy.ToyTokenizer(), shard_size=3)
    seen: list[int] = []
    report = encode_dataset(plan, toy.ToyTokenizer(), tmp_path / "out", progress=seen.append)
    assert report.already_done
    assert report.manifest == read_manifest(encoded)
    assert seen == [10]
    assert folder_contents(tmp_path / "out") == folder_contents(encoded)


def test_a_finished_dataset_without_a_shard_is_not_complete(
    toy, photos, encoded, tmp_path, folder_contents
) -> None:
    shutil.copytree(encoded, tmp_path / "out")
    path = tmp_path / "out/shard-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    for _ in range(2):
        before = folder_contents(tmp_path / "out")
        with pytest.raises(DataError, match=r"shard-00002\.safetensors: .* encode into another"):
            toy.encode(str(photos), str(tmp_path / "out"))
        assert folder_contents(tmp_path / "out") == before
        path.unlink(missing_ok=True)


OTHER = [
    (
        {"fingerprint": "99"},
        {},
        r"tokenizer 'toy' \(image, 99\) instead of 'toy' \(image, 7070\w{8}\)(;|$)",
    ),
    ({}, {"packing": "plain"}, "packing 'plain' instead of 'bits'"),
    ({}, {"num_codebooks": 1}, r"codebook_sizes \[16\] instead of \[16, 50\]"),
    ({}, {"shard_size": 4}, r"shard_size 4 instead of 3|another shard size"),
    ({"device": torch.device("cuda")}, {}, "device 'cuda' instead of 'cpu'|another device"),
]


@pytest.mark.parametrize(("tokenizer", "options", "message"), OTHER)
@pytest.mark.parametrize("finished", [True, False])
def test_another_plan_is_refused(
    toy, photos, encoded, tmp_path, folder_contents, finished, tokenizer, options, message
) -> None:
    out = tmp_path / "out"
    if finished:
        shutil.copytree(encoded, out)
    else:
        interrupt(toy, photos, out)
    before = folder_contents(out)
    other = toy.ToyTokenizer()
    for name, value in tokenizer.items():
        setattr(other, name, value)
    plan = make_plan(list_sources(photos), other, **{"shard_size": 3, **options})
    with pytest.raises(
        UsageError, match=f"out holds .* that differs: .*({message}).*choose another output"
    ):
        encode_dataset(plan, other, out)
    assert folder_contents(out) == before


def interrupt(toy, photos: Path, out: Path) -> None:
    """Leave a run in ``out`` that stopped after its second task."""
    tokenizer = toy.ToyTokenizer()
    plan = make_plan(list_sources(photos), tokenizer, shard_size=3)
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        if done > 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_dataset(plan, tokenizer, out, progress=progress)


def test_other_inputs_are_refused(toy, photos: Path, tmp_path: Path) -> None:
    interrupt(toy, photos, tmp_path / "out")
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos/new.png").touch()
    with pytest.raises(UsageError, match=r"the inputs have changed.* \(11 now, 10 then\)"):
        toy.encode(str(tmp_path / "photos"), str(tmp_path / "out"))


@pytest.mark.parametrize("finished", [True, False])
def test_other_files_of_the_same_names_are_refused(
    toy, photos, tmp_path, folder_contents, finished: bool
) -> None:
    copy = tmp_path / "photos"
    shutil.copytree(photos, copy)
    if finished:
        toy.encode(str(photos), str(tmp_path / "out"))
    else:
        interrupt(toy, photos, tmp_path / "out")
    before = folder_contents(tmp_path / "out")
    path = copy / "day 1/phöto 7.png"
    sound = path.read_bytes()
    for changed in (sound[:-1] + b"\1", sound + b"\0", b""):
        path.write_bytes(changed)
        with pytest.raises(UsageError, match="the inputs have changed"):
            toy.encode(str(copy), str(tmp_path / "out"))
        assert folder_contents(tmp_path / "out") == before
    path.write_bytes(sound)
    toy.encode(str(copy), str(tmp_path / "out"))  # where they lie does not matter
    toy.encode(str(copy), str(tmp_path / "again"))
    assert folder_contents(tmp_path / "out") == folder_contents(tmp_path / "again")


def test_resume_does_only_what_is_left(toy, photos, encoded, tmp_path, folder_contents) -> None:
    out = tmp_path / "out"
    interrupt(toy, photos, out)
    with pytest.raises(DataError, match="has not finished"):
        TokenReader(out)
    assert [problem.file for problem in verify(out)] == ["manifest.json"]
    (out / f"shard-00002.safetensors.tmp.{'0' * 32}").touch()
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("shard-0000[01]*")}
    assert len(times) == 2
    seen: list[int] = []
    plan = make_plan(list_sources(photos), toy.ToyTokenizer(), shard_size=3)
    report = encode_dataset(plan, toy.ToyTokenizer(), out, progress=seen.append)
    assert not report.already_done
    assert seen == [6, 1, 1, 1, 1]
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("shard-0000[01]*")} == times
    assert folder_contents(out) == folder_contents(encoded)


def test_a_part_without_its_shard_is_done_again(
    toy, photos, encoded, tmp_path, folder_contents
) -> None:
    out = tmp_path / "out"
    interrupt(toy, photos, out)
    (out / "shard-00000.safetensors").unlink()
    (out / "shard-00001.safetensors").write_bytes(b"short")
    (out / ".vqtok/part-00002.json").write_bytes(b"{")
    toy.encode(str(photos), str(out))
    assert folder_contents(out) == folder_contents(encoded)


def test_a_crash_at_any_step_loses_nothing(run_toy, photos, toy, tmp_path, folder_contents) -> None:
    photos = photos / "day 0"
    toy.encode(str(photos), str(tmp_path / "undisturbed"))
    wanted = folder_contents(tmp_path / "undisturbed")
    crashes = run_toy(photos, tmp_path / "out", "crash")["crashes"]
    assert crashes > 30
    for number in range(1, crashes + 2):
        assert folder_contents(tmp_path / f"out-{number}") == wanted, f"crash at step {number}"


def test_kill_at_random_moments(run_toy, photos, encoded, tmp_path, folder_contents) -> None:
    kills = run_toy(photos, tmp_path / "out", "kill", 3)
    assert sum(kills) > 0
    for number in range(3):
        assert folder_contents(tmp_path / f"out-{number}") == folder_contents(encoded)


def test_a_full_disk_is_an_error(run_toy, photos, encoded, tmp_path, folder_contents, toy) -> None:
    """The largest shard does not fit; nothing half-written counts as done."""
    sizes = [path.stat().st_size for path in encoded.glob("*.safetensors")]
    error = run_toy(photos, tmp_path / "out", "small", max(sizes) - 1)
    assert error["errno"] == errno.EFBIG
    assert not (tmp_path / "out/manifest.json").exists()
    assert not list(tmp_path.rglob("*.tmp.*"))
    toy.encode(str(photos), str(tmp_path / "out"))
    assert folder_contents(tmp_path / "out") == folder_contents(encoded)


def test_a_read_only_output_is_an_error(run_toy, photos) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to other users
        os.chmod(folder, 0o555)
        error = run_toy(photos, Path(folder, "out"), "nobody")
        assert error["errno"] in (errno.EACCES, errno.EROFS)
        assert os.listdir(folder) == []


def test_an_output_that_holds_other_files(toy, photos, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UsageError, match="holds other files"):
        toy.encode(str(photos), str(tmp_path))
    with pytest.raises(UsageError, match="is a file"):
        toy.encode(str(photos), str(tmp_path / "mine.txt"))


def test_links_in_place_of_the_output(toy, photos, tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    with pytest.raises(UsageError, match="is a link to nothing"):
        toy.encode(str(photos), str(tmp_path / "dangling"))
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.vqtok").symlink_to(tmp_path / "precious")
    with pytest.raises(UsageError, match=r"out/\.vqtok is a link"):
        toy.encode(str(photos), str(tmp_path / "out"))
    assert os.listdir(tmp_path / "precious") == ["file"]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    toy.encode(str(photos / "day 1"), str(tmp_path / "link"))
    assert verify(tmp_path / "elsewhere") == []


def test_two_runs_at_once(toy, photos, tmp_path: Path) -> None:
    plan = make_plan(list_sources(photos), toy.ToyTokenizer())
    with (
        open_workspace(tmp_path / "out", plan),
        pytest.raises(UsageError, match="another vqtok encode is writing"),
    ):
        encode_dataset(plan, toy.ToyTokenizer(), tmp_path / "out")


def test_merging_needs_every_part(toy, photos, tmp_path: Path) -> None:
    plan = make_plan(list_sources(photos), toy.ToyTokenizer())
    with (
        open_workspace(tmp_path / "out", plan) as workspace,
        pytest.raises(DataError, match="task 0 of 1 is not done"),
    ):
        workspace.merge()


def test_all_inputs_bad(toy, photos, tmp_path: Path) -> None:
    toy.encode(str(photos / "day 0/bad.png"), str(tmp_path / "out"))
    assert (len(TokenReader(tmp_path / "out")), verify(tmp_path / "out")) == (0, [])
    assert read_manifest(tmp_path / "out").errors == 1


@pytest.mark.parametrize("options", [{"num_codebooks": 0}, {"num_codebooks": 3}, {"shard_size": 0}])
def test_senseless_options(toy, photos, options) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        make_plan(list_sources(photos), toy.ToyTokenizer(), **options)


def test_a_plan_file_comes_back(toy, photos, tmp_path: Path) -> None:
    plan = make_plan(list_sources(photos), toy.ToyTokenizer(), shard_size=3)
    (tmp_path / "plan").write_bytes(plan.to_bytes())
    assert Plan.load(tmp_path / "plan") == plan
    data = bytearray(plan.to_bytes())
    for position in range(0, len(data) - 1, 7):
        data[position] ^= 1
        (tmp_path / "plan").write_bytes(data)
        try:
            damaged = Plan.load(tmp_path / "plan")
        except DataError:
            pass
        else:  # only where the inputs lie on this machine is outside the digest
            assert damaged.digest == plan.digest
        data[position] ^= 1


def test_memory_does_not_grow_with_the_number_of_inputs(toy, tmp_path, monkeypatch) -> None:
    """At most two images per worker and one more are decoded and not yet encoded."""
    import vqtok.pipeline.images as module

    write_image(tmp_path / "x.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "list.txt").write_text("x.png\n" * 100)
    decoded, encoded, most = 0, 0, 0
    read = module._read

    def counting(source):
        nonlocal decoded, most
        decoded += 1
        most = max(most, decoded - encoded)
        return read(source)

    def progress(count: int) -> None:
        nonlocal encoded
        encoded += count

    monkeypatch.setattr(module, "_read", counting)
    plan = make_plan(list_sources(tmp_path / "list.txt"), toy.ToyTokenizer())
    encode_dataset(plan, toy.ToyTokenizer(), tmp_path / "out", workers=3, progress=progress)
    assert decoded == 100
    assert most <= 2 * 3 + 2


def test_write_shard_is_the_only_writer_of_shards(toy, photos, tmp_path, monkeypatch) -> None:
    """A failure while a shard is written leaves neither the shard nor a part of it."""

    def broken(*arguments):
        write_shard(*arguments)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("vqtok.pipeline.task.write_shard", broken)
    with pytest.raises(OSError, match="No space left"):
        toy.encode(str(photos), str(tmp_path / "out"))
    assert not list((tmp_path / "out/.vqtok").glob("part-*"))
