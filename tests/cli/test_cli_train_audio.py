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


@pytest.mark.parametrize(
    "option",
    ["--key q", "--size 3", "--held-out 0.1", "--contamination 0.1"],
)
def test_options_of_autoencoders_are_refused(sounds, tmp_path, capsys, option):
    command = ["train", "audio-tiny", "--data", str(sounds), "--out", str(tmp_path / "run")]
    assert main([*command, "--steps", "1", *option.split()]) == 2
    name = option.split()[0]
    assert f"{name} belongs to autoencoders, not to the tokenizer" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_settings_of_a_preset(sounds, tmp_path, capsys):
    out = tmp_path / "live"
    command = ["train", "audio-tiny", "--data", str(sounds), "--out", str(out), "--steps", "1"]
    command += ["--batch-size", "2", "--crop", "1600"]
    assert main([*command, "--set", "causal=true"]) == 0
    encoder = Tokenizer.from_pretrained(out).autoencoder.encoder
    assert encoder.config["causal"] is True
    assert encoder.context[1] == encoder.hop // 2
    capsys.readouterr()
    for setting, message in (
        ("x=1", "audio-tiny has no setting 'x'; it has ['causal']"),
        ("causal=2", "causal must be true or false, not 2"),
        ("causal", "write NAME=VALUE"),
    ):
        assert main([*command, "--set", setting]) == 2
        assert message in capsys.readouterr().err


def test_arrays_are_no_sounds(tmp_path, capsys):
    command = ["train", "audio-tiny", "--data", "t.npz", "--out", str(tmp_path / "run")]
    assert main(command) == 2
    assert "audio-tiny is trained on sounds: a folder, a glob, a text" in capsys.readouterr().err


def test_an_autoencoder_is_no_tokenizer(sounds, tmp_path, capsys):
    np.save(tmp_path / "table.npy", np.random.default_rng(0).normal(size=(60, 4)))
    model = str(tmp_path / "model")
    train = ["train", "vanilla", "--data", str(tmp_path / "table.npy"), "--out", model]
    assert main([*train, "--steps", "1"]) == 0
    capsys.readouterr()
    assert main(["encode", str(sounds), str(tmp_path / "out"), "--tokenizer", model]) == 2
    message = f"{model} is an autoencoder, not a tokenizer; see vqtok inspect {model}"
    assert message in capsys.readouterr().err
