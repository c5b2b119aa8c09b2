from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import soundfile

from vqtok.errors import UsageError, VqtokError
from vqtok.media import AUDIO_FORMATS, AudioWriter, read_audio, write_audio

NOISE = np.random.default_rng(0).uniform(-0.9, 0.9, (2, 50_000)).astype(np.float32)


@pytest.mark.parametrize("extension", AUDIO_FORMATS)
@pytest.mark.parametrize("samples", [1, 777, 50_000])
def test_every_format_keeps_length_and_rate(tmp_path, extension: str, samples: int) -> None:
    rate = 48000 if extension == "opus" else 44100
    path = tmp_path / f"a.{extension}"
    write_audio(path, NOISE[:, :samples], rate, extension)
    decoded = read_audio(path)
    assert (decoded.samples.shape, decoded.sample_rate) == ((2, samples), rate)
    assert (soundfile.info(path).format, soundfile.info(path).subtype) == AUDIO_FORMATS[extension]
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("extension", ["wav", "flac"])
def test_sixteen_bits_are_rounded_and_clipped(tmp_path, extension: str) -> None:
    values = np.array([[0, 0.4 / 32768, 0.6 / 32768, 1, 1.5, -1, -7, 1e30]], np.float32)
    write_audio(tmp_path / "a", values, 8000, extension)
    expected = [[0, 0, 1, 32767, 32767, -32768, -32768, 32767]]
    np.testing.assert_array_equal(read_audio(tmp_path / "a").samples * 32768, expected)


def test_pieces_make_the_same_file(tmp_path) -> None:
    write_audio(tmp_path / "whole.flac", NOISE, 44100, "flac")
    with AudioWriter(tmp_path / "pieces.flac", 44100, 2, "flac") as writer:
        for piece in np.array_split(NOISE, 13, axis=1):
            writer.write(piece)
    assert (tmp_path / "whole.flac").read_bytes() == (tmp_path / "pieces.flac").read_bytes()


def test_many_channels_and_high_rates(tmp_path) -> None:
    eight = np.tile(NOISE[:1, :100], (8, 1))
    write_audio(tmp_path / "a.wav", eight, 192_000)
    assert read_audio(tmp_path / "a.wav").samples.shape == (8, 100)
    assert read_audio(tmp_path / "a.wav").sample_rate == 192_000


def test_long_wav_files_are_rf64(tmp_path) -> None:
    with AudioWriter(tmp_path / "a.wav", 48000, 2, "wav", length=1 << 30) as writer:
        writer.write(NOISE)
    assert (tmp_path / "a.wav").read_bytes()[:4] == b"RF64"
    assert read_audio(tmp_path / "a.wav").samples.shape == NOISE.shape


@pytest.mark.parametrize(
    ("extension", "rate", "channels", "message"),
    [
        ("opus", 44100, 2, "opus cannot hold 2 channels at 44,100 Hz"),
        ("mp3", 96000, 2, "mp3 cannot hold"),
        ("mp3", 44100, 6, "mp3 cannot hold 6 channels"),
        ("aac", 44100, 2, "unknown audio format 'aac': choose wav, flac"),
    ],
)
def test_what_a_format_cannot_hold(tmp_path, extension, rate, channels, message) -> None:
    with pytest.raises(UsageError, match=message):
        write_audio(tmp_path / "a", np.zeros((channels, 9), np.float32), rate, extension)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_old_file(tmp_path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"old")

    def write_half() -> None:
        with AudioWriter(path, 8000, 2) as writer:
            writer.write(NOISE)
            raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        write_half()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.wav"]


def test_a_full_disk(tmp_path) -> None:
    code = f"""
import resource, signal
import numpy as np
from vqtok.media import AUDIO_FORMATS, write_audio
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
noise = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 500_000)).astype(np.float32)
for extension in AUDIO_FORMATS:
    try:
        write_audio({str(tmp_path)!r} + "/a." + extension, noise, 48000, extension)
    except Exception as error:
        print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(done) == len(AUDIO_FORMATS)
    assert all(line.startswith("VqtokError") and "cannot write the sound" in line for line in done)
    assert not list(tmp_path.iterdir())


def test_wrong_arguments(tmp_path) -> None:
    for wrong in (NOISE[0], NOISE.astype(np.float64), NOISE[:, :0]):
        with pytest.raises(ValueError, match=r"float32 \[C, n\]"):
            write_audio(tmp_path / "a.wav", wrong, 8000)
    with pytest.raises(VqtokError, match=r"gone.a\.wav: cannot write the sound: No such file"):
        write_audio(tmp_path / "gone" / "a.wav", NOISE, 8000)


@pytest.mark.parametrize("kind", ["wav", "ogg"])
def test_clipped_values_are_counted(tmp_path, kind) -> None:
    samples = np.array([[0, 1, -1, 1.5, -7], [0.2, 0.3, 1.01, 0, 0]], np.float32)
    with AudioWriter(tmp_path / "a", 8000, 2, kind) as writer:
        writer.write(samples[:, :4])
        assert writer.clipped == 2
        writer.write(samples[:, 4:])
    assert writer.clipped == 3
