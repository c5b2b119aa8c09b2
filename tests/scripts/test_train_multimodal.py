"""scripts/train_multimodal.py in small: it learns, stops, goes on, and writes files of samples."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from vqtok import Vocabulary
from vqtok.media import read_audio
from vqtok.tokens import Header, Sample, write_manifest, write_shard

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
SMALL = ["--photo-window", "4", "--sound-window", "10", "--length", "64", "--batch-size", "8"]
SMALL += ["--dim", "32", "--layers", "1", "--heads", "2", "--warmup", "5", "--log-every", "10"]
SMALL += ["--test-batches", "2"]


def write_tokens(folder: Path, modality: str, sizes: tuple[int, ...], count: int) -> Path:
    """Codes that follow from those before them: a few numbers counted up along the axes."""
    folder.mkdir()
    header = Header(tokenizer="t", tokenizer_name="t", codebook_sizes=sizes, modality=modality)
    samples = []
    for i in range(count):
        dims = (5, 6) if modality == "image" else (20, 1)
        y, x = np.indices(dims)
        planes = [(i + y + x + q) % 16 for q in range(len(sizes))]
        samples.append(Sample(np.stack(planes, -1), {"source": f"birds/robin_{i}.jpg"}))
    write_manifest(folder, header, [write_shard(folder / "shard", samples, header)])
    return folder


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    photos = write_tokens(folder / "photos", "image", (1024, 1024), 40)
    return photos, write_tokens(folder / "sounds", "audio", (1024, 1024, 1024), 40)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import train_multimodal

    return train_multimodal


def lines_of(out: Path) -> list[dict]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in lines]


def test_it_learns_stops_and_goes_on(script, datasets, tmp_path, monkeypatch, capsys):
    command = [*map(str, datasets), *SMALL, "--steps", "40", "--learning-rate", "1e-2"]
    command += ["--save-every", "20", "--samples", "1"]
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    script.main([*command, "--out", str(straight)])
    lines = lines_of(straight)
    model, order_0 = lines[-1]["held_out"]["all"]
    assert model < 0.8 * order_0
    assert lines[0]["held_out"]["all"][0] > order_0

    save = script.save_checkpoint

    def save_and_die(*args, **options):
        save(*args, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(script, "save_checkpoint", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            script.main([*command, "--out", str(stopped)])
    assert len(lines_of(stopped)) == 2
    script.main([*command, "--out", str(stopped)])
    assert lines_of(stopped) == lines
    ours, theirs = (load_file(each / "checkpoint.safetensors") for each in (stopped, straight))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)

    vocabulary = Vocabulary.load(straight / "vocabulary.json")
    assert set(vocabulary.layouts) == {"photo", "sound"}
    captions = (straight / "samples" / "captions.txt").read_text().splitlines()
    assert [line.split(": ")[:2] for line in captions] == [
        ["photo-0", "robin"],
        ["sound-0", "robin"],
    ]
    with Image.open(straight / "samples" / "photo-0.png") as image:
        assert min(image.size) >= 8
    assert read_audio(straight / "samples" / "sound-0.wav").sample_rate == 24000
    assert "step 40" in capsys.readouterr().out


def test_captions(script):
    captions = script.Captions({"a/b.jpg": "two birds"})
    assert captions({"source": "a/b.jpg"}) == "two birds"
    assert captions({"source": "a/Grey_Heron-02.tar.ogg"}) == "grey heron tar"
    assert captions({}) == ""


def test_two_ranks(datasets, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    command += [str(SCRIPTS / "train_multimodal.py"), *map(str, datasets), *SMALL]
    command += ["--steps", "2", "--samples", "0", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    (line,) = lines_of(tmp_path)
    assert line["step"] == 2
    state = json.loads(next_metadata(tmp_path)["run"])["stream"]
    assert (state["step"], state["batches"]) == (16, 2)


def next_metadata(out: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(out / "checkpoint.safetensors", "np") as file:
        return file.metadata()
