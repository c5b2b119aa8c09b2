"""scripts/evaluate_audio.py and audio_baselines.py: that what they report is what they say."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vqtok.cli import main
from vqtok.tokenizer import AudioTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import audio_baselines  # type: ignore[import-not-found]
import evaluate_audio  # type: ignore[import-not-found]

RATE = 24_000


@pytest.fixture(scope="module")
def tokenizer(make_audio_model) -> AudioTokenizer:
    return AudioTokenizer(make_audio_model(), name="small", block=100)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    generator = np.random.default_rng(0)
    for index, samples in enumerate((7001, 12_000)):
        wave = generator.standard_normal(samples) * 0.1
        soundfile.write(folder / f"{index}.wav", wave, RATE, "FLOAT")
    return folder


def test_kbps_is_what_encode_writes(tokenizer, sounds, tmp_path, capsys) -> None:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    rows = evaluate_audio.evaluate(tokenizer, str(sounds), [2], speech=False)
    command = ["encode", str(sounds), str(tmp_path / "tokens"), "--pack", "entropy"]
    command += ["--tokenizer", str(tmp_path / "tokenizer"), "--num-codebooks", "2"]
    assert main(command) == 0
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "tokens"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert rows[0]["kbps"] == pytest.approx(facts["kbps_of_codes"])
    assert rows[0]["kbps_fixed"] == 2 * 5 * tokenizer.frame_rate / 1000
    assert (rows[0]["codec"], rows[0]["sounds"]) == ("small, 2 of 3", 2)


def test_the_figures_of_perfect_and_of_silent_sounds(tokenizer, sounds) -> None:
    scores = evaluate_audio.Scores(RATE, speech=False)
    wave = next(evaluate_audio.sounds(str(sounds), RATE, None))
    scores.add(wave, wave, 3.0)
    means = scores.means()
    assert means["mel"] == means["stft"] == means["spectrum"] == 0
    assert means["si_sdr_db"] > 100
    assert means["kbps"] == 3.0
    assert "kbps" not in evaluate_audio.Scores(RATE, speech=False).means()


def test_si_sdr_is_the_ratio_of_orthogonal_parts() -> None:
    time = np.arange(2400) / RATE
    said, noise = np.sin(2 * np.pi * 100 * time), np.cos(2 * np.pi * 100 * time)
    expected = 10 * math.log10(3**2 / 0.5**2)
    assert evaluate_audio.si_sdr(3 * said + 0.5 * noise, said) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("delay", [-300, 0, 57, 1500])
def test_delays_are_taken_out(delay: int) -> None:
    wave = np.random.default_rng(1).standard_normal(8000).astype(np.float32)
    moved = np.roll(np.pad(wave, 4000), delay)[4000:]
    found = audio_baselines.aligned(moved, wave)
    inside = slice(400, 7600)
    np.testing.assert_array_equal(found[inside], wave[inside])


def test_opus_takes_about_what_it_is_asked_for() -> None:
    pytest.importorskip("av")
    wave = (np.random.default_rng(2).standard_normal(2 * RATE) * 0.1).astype(np.float32)
    decoded, kbps = audio_baselines.baseline(wave, RATE, "Opus 12", speech=True)
    assert len(decoded) == len(wave)
    assert 8 < kbps < 16


@pytest.mark.skipif(shutil.which("c2enc") is None, reason="the package codec2 is not installed")
def test_codec2_takes_3200_bits_a_second() -> None:
    time = np.arange(2 * RATE) / RATE
    wave = (0.1 * np.sign(np.sin(2 * np.pi * 120 * time))).astype(np.float32)
    decoded, kbps = audio_baselines.baseline(wave, RATE, "codec2 3200", speech=True)
    assert len(decoded) == len(wave)
    assert kbps == pytest.approx(3.2, abs=0.05)


def test_a_table_leaves_out_what_nobody_has() -> None:
    rows = [{"codec": "a", "kbps": 3.0, "mel": 0.5}, {"codec": "b", "mel": 0.25}]
    assert evaluate_audio.table(rows).splitlines() == [
        "| codec | kbps | mel |",
        "|---|---|---|",
        "| a | 3.00 | 0.500 |",
        "| b |  | 0.250 |",
    ]
