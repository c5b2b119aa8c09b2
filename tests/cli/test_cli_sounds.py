"""The verbs on sounds, and on folders that hold both kinds."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import torch

from vqtok.cli import main
from vqtok.media import read_audio, scan_sources, write_audio, write_image
from vqtok.tokenizer import AudioTokenizer
from vqtok.tokens import TokenReader


@pytest.fixture(scope="module")
def audio_folder(make_audio_model, tmp_path_factory) -> str:
    """A small untrained audio tokenizer, saved."""
    folder = tmp_path_factory.mktemp("audio")
    AudioTokenizer(make_audio_model(), name="small-audio", block=50).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> str:
    """Two images, three sounds and a note."""
    folder = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    for i in range(2):
        write_image(folder / f"{i}.png", rng.integers(0, 256, (9, 9, 3), np.uint8))
    for name, rate, samples in (("a.wav", 8000, 8000), ("b.flac", 44100, 999), ("c.mp3", 24000, 1)):
        wave = rng.uniform(-0.5, 0.5, (1, samples)).astype(np.float32)
        write_audio(folder / name, wave, rate, name[2:])
    (folder / "notes.md").touch()
    return str(folder)


@pytest.fixture(scope="module")
def sound_tokens(audio_folder: str, mixed: str, tmp_path_factory) -> str:
    out = str(tmp_path_factory.mktemp("encoded") / "tokens")
    assert main(["encode", mixed, out, "--tokenizer", audio_folder]) == 0
    return out


def test_there_and_back(sound_tokens, audio_folder, mixed, tmp_path, capsys) -> None:
    assert main(["verify", sound_tokens]) == 0
    out = str(tmp_path / "out")
    arguments = ["decode", sound_tokens, out, "--tokenizer", audio_folder, "--format", "flac"]
    assert main(arguments) == 0
    assert f"{out}: 3 sounds decoded" in capsys.readouterr().out
    for name in ("a.wav", "b.flac", "c.mp3"):
        original = read_audio(f"{mixed}/{name}")
        decoded = read_audio((tmp_path / "out" / name).with_suffix(".flac"))
        assert decoded.samples.shape == original.samples.shape
        assert decoded.sample_rate == original.sample_rate


def test_the_tokenizer_chooses_the_kind(sound_tokens, mixed, tokenizer_folder, tmp_path, capsys):
    assert [s.meta["source"] for s in TokenReader(sound_tokens)] == ["a.wav", "b.flac", "c.mp3"]
    out = str(tmp_path / "images")
    assert main(["encode", mixed, out, "--tokenizer", tokenizer_folder]) == 0
    assert "passed over 4 files (1 .flac, 1 .md, 1 .mp3, 1 .wav)" in capsys.readouterr().err
    assert TokenReader(out).header.modality == "image"
    assert len(TokenReader(out)) == 2


def test_without_a_tokenizer_a_mixed_folder_is_refused(mixed, tmp_path, capsys) -> None:
    assert main(["encode", mixed, str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "holds 2 images and 3 sounds, and a dataset holds one kind: choose with" in message
    assert "choose with --tokenizer photo or --tokenizer audio" in message
    assert not (tmp_path / "out").exists()


def test_without_a_tokenizer_the_kind_of_the_files_counts(mixed, monkeypatch, tmp_path) -> None:
    chosen: list[str] = []

    class ChosenError(Exception):
        pass

    def load(name: str, device: str, precision: str) -> None:
        chosen.append(name)
        raise ChosenError

    monkeypatch.setattr("vqtok.cli.encode.load_tokenizer", load)
    for spec in (f"{mixed}/*.wav", f"{mixed}/c.mp3", f"{mixed}/*.png", f"{mixed}/notes.md"):
        with pytest.raises(ChosenError):
            main(["encode", spec, str(tmp_path / "out")])
    assert chosen == ["audio", "audio", "photo", "photo"]
    assert scan_sources(mixed, None).modalities == {"image": 2, "audio": 3}


def test_inspect_sounds(sound_tokens, audio_folder, capsys) -> None:
    assert main(["inspect", sound_tokens, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    seconds = 1 + 999 / 44100 + 1 / 24000
    assert facts["seconds"] == pytest.approx(seconds)
    frames = 375 + -(-544 // 64) + 1
    assert facts["codes"] == frames
    assert facts["kbps_of_codes"] == pytest.approx(frames * 15 / seconds / 1000)
    assert facts["kbps"] == pytest.approx(facts["bytes"] * 8 / seconds / 1000)
    assert "pixels" not in facts
    assert main(["inspect", sound_tokens]) == 0
    text = capsys.readouterr().out
    assert f"{facts['kbps']:.3f} kbps on disk; 1.0 s of sound" in text
    assert main(["inspect", audio_folder, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["frame_rate"] == 375
    assert facts["kbps"] == pytest.approx([1.875, 3.75, 5.625])
    assert facts["latency"]["encode"] == pytest.approx((50 + 4) / 375)
    assert main(["inspect", audio_folder]) == 0
    assert (
        "1: 1.88, 2: 3.75, 3: 5.62 (by number of codebooks, a channel)" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "png"], "no audio format 'png': choose wav, flac, ogg, opus, mp3"),
        (["--quality", "50"], "--quality: wav is lossless and takes none"),
        (["--format", "flac", "--quality", "50"], "--quality: flac is lossless and takes none"),
    ],
)
def test_wrong_requests(sound_tokens, audio_folder, tmp_path, capsys, options, message) -> None:
    arguments = ["decode", sound_tokens, str(tmp_path / "out"), "--tokenizer", audio_folder]
    assert main([*arguments, *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_of_the_other_kind(sound_tokens, tokenizer_folder, tmp_path, capsys) -> None:
    arguments = ["decode", sound_tokens, str(tmp_path / "out"), "--tokenizer", tokenizer_folder]
    assert main(arguments) == 2
    assert "was made by tokenizer 'small-audio'" in capsys.readouterr().err


def test_shards_hold_a_hundred_sounds(audio_folder, tmp_path, capsys) -> None:
    write_audio(tmp_path / "a.wav", np.zeros((1, 9), np.float32), 8000)
    (tmp_path / "list.txt").write_text("a.wav\n" * 101)
    out = str(tmp_path / "out")
    assert main(["encode", str(tmp_path / "list.txt"), out, "--tokenizer", audio_folder]) == 0
    assert "101 samples in 2 shards" in capsys.readouterr().out


def test_notes_on_inputs_are_told(audio_folder, tmp_path, capsys) -> None:
    samples = np.random.default_rng(0).uniform(-0.3, 0.3, (1, 96_000)).astype(np.float32)
    for name in ("a.ogg", "b.ogg", "whole.ogg"):
        write_audio(tmp_path / name, samples, 48_000, "ogg")
    for name in ("a.ogg", "b.ogg"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: data.rindex(b"OggS")])
    out = str(tmp_path / "out")
    encode = ["encode", str(tmp_path / "*.ogg"), out, "--tokenizer", audio_folder]
    assert main(encode) == 0
    note = "the stream has no end mark: the file may have been cut short"
    assert f"vqtok: noted: a.ogg and 1 more: {note}\n" in capsys.readouterr().err
    assert main(["inspect", out, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["notes"] == [{"note": note, "samples": 2, "first": "a.ogg"}]
    assert main(["inspect", out]) == 0
    assert f"note on 2 samples: {note} (first a.ogg)\n" in capsys.readouterr().out


def test_inspect_shows_a_config_once(capsys) -> None:
    assert main(["inspect", "audio@1"]) == 0
    text = capsys.readouterr().out
    assert text.count('"quantizer"') == 1
    assert "  training        {" in text


def test_clipped_values_are_told(audio_folder, tmp_path, capsys) -> None:
    from vqtok.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_pretrained(audio_folder)
    loud = np.random.default_rng(0).uniform(-1, 1, (1, 4_000)).astype(np.float32) * 30
    soundfile.write(tmp_path / "loud.wav", loud.T, 24_000, subtype="FLOAT")
    tokens, out = str(tmp_path / "tokens"), str(tmp_path / "out")
    encode = ["encode", str(tmp_path / "loud.wav"), tokens, "--tokenizer", audio_folder]
    assert main(encode) == 0
    codes = tokenizer.encode(torch.from_numpy(loud)[None])
    decoded = tokenizer.decode(codes, samples=4_000)
    expected = int((decoded.abs() > 1).sum())
    assert expected > 0
    capsys.readouterr()
    assert main(["decode", tokens, out, "--tokenizer", audio_folder, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["clipped"] == expected
    assert f"{expected:,} values of 1 sound beyond full scale clipped\n" in captured.err
