import json

import numpy as np
import pytest
import soundfile

from vqtok.cli import main
from vqtok.tokenizer import Tokenizer


@pytest.fixture
def sounds(tmp_path):
    folder = tmp_path / "sounds"
    folder.mkdir()
    noise = np.random.default_rng(0).standard_normal((2, 8000)) * 0.1
    for index, samples in enumerate(noise):
        soundfile.write(folder / f"{index}.wav", samples, 8000)
    return folder


def test_train_makes_an_audio_tokenizer(sounds, tmp_path, capsys):
    out = tmp_path / "run"
    command = ["train", "audio-tiny", "--data", str(sounds), "--out", str(out), "--steps", "2"]
    command += ["--batch-size", "2", "--crop", "1600", "--validation", str(sounds), "--json"]
    assert main(command) == 0
    result = json.loads(capsys.readouterr().out)
    tokenizer = Tokenizer.from_pretrained(out)
    assert tokenizer.fingerprint == result["fingerprint"]
    assert tokenizer.modality == "audio"
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["validation"]["mel"] > 0


def test_a_crop_must_fit_the_hop(sounds, tmp_path, capsys):
    command = ["train", "audio-tiny", "--data", str(sounds), "--out", str(tmp_path / "run")]
    assert main([*command, "--crop", "1601"]) == 2
    assert "--crop must be a multiple of 160, not 1601" in capsys.readouterr().err


def test_a_last_phase_against_a_discriminator(sounds, tmp_path, capsys):
    command = ["train", "audio-tiny", "--data", str(sounds), "--steps", "2", "--batch-size", "2"]
    command += ["--crop", "1600"]
    first, second = tmp_path / "first", tmp_path / "second"
    assert main([*command, "--out", str(first)]) == 0
    assert main([*command, "--out", str(second), "--init", str(first), "--adversary"]) == 0
    lines = [json.loads(line) for line in (second / "metrics.jsonl").read_text().splitlines()]
    step = next(line for line in lines if "adversary" in line)
    assert step["loss/adversarial"] > 0 < step["loss/features"]
    first_weights, weights = (
        Tokenizer.from_pretrained(each).autoencoder.state_dict() for each in (first, second)
    )
    assert any(not (first_weights[name] == weights[name]).all() for name in weights)
    assert main(["train", "photo-tiny", "--data", str(sounds), "--out", "x", "--adversary"]) == 2
