"""Sound files through token datasets and back: exact, whatever happens on the way."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from vqtok.errors import UsageError, VqtokError
from vqtok.media import list_sources, read_audio, write_audio
from vqtok.pipeline import decode_dataset, encode_dataset, make_plan
from vqtok.tokenizer import AudioTokenizer, Tokenizer
from vqtok.tokens import Header, Sample, TokenReader, verify, write_shard


@pytest.fixture(scope="module")
def tokenizer_folder(make_audio_model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    AudioTokenizer(make_audio_model(), name="small", block=50).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return Tokenizer.from_pretrained(tokenizer_folder)


def noise(channels: int, samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (channels, samples)).astype(np.float32)


GOOD = {
    "stereo.wav": (44100, 2, 30_001),
    "eight.wav": (48000, 8, 5_000),
    "fast.flac": (192_000, 1, 40_000),
    "slow.ogg": (11_025, 1, 9_999),
    "talk.mp3": (8000, 1, 4_000),
    "deep/voice.opus": (24000, 1, 7_777),
    "one.wav": (22050, 1, 1),
    "silence.flac": (16000, 2, 8_000),
}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    """Eight good files and seven bad ones."""
    folder = tmp_path_factory.mktemp("sounds")
    (folder / "deep").mkdir()
    for seed, (name, (rate, channels, samples)) in enumerate(GOOD.items()):
        wave = noise(channels, samples, seed) * (name != "silence.flac")
        write_audio(folder / name, wave, rate, name.rsplit(".")[-1])
    loud = noise(1, 9_000) * 6
    soundfile.write(folder / "clipped.wav", loud.T, 24000, subtype="FLOAT")
    (folder / "letter.wav").write_text("Dear diary, I am no sound.\n" * 40)
    (folder / "empty.flac").touch()
    soundfile.write(folder / "nothing.wav", np.zeros((0, 1)), 8000)
    soundfile.write(folder / "nan.wav", np.array([0.1, np.nan]), 8000, subtype="FLOAT")
    for name in ("stereo.wav", "fast.flac"):
        data = (folder / name).read_bytes()
        (folder / f"cut.{name[-4:].strip('.')}").write_bytes(data[: len(data) // 2])
    (folder / "gone.wav").symlink_to("nowhere")
    return folder


BAD = {
    "letter.wav": "no sound file that is read",
    "empty.flac": "the file is empty",
    "nothing.wav": "it holds no samples",
    "nan.wav": "sample 1 (0.000 s) is not a finite number",
    "cut.wav": "cut short",
    "cut.flac": "truncated or damaged",
    "gone.wav": "cannot be read: No such file",
}


def encode(source: Path, out: Path, tokenizer: Tokenizer, **options) -> None:
    workers = options.pop("workers", 2)
    plan = make_plan(list_sources(source, "audio"), tokenizer, **{"shard_size": 4, **options})
    encode_dataset(plan, tokenizer, out, workers=workers)


@pytest.fixture(scope="module")
def encoded(sounds: Path, tokenizer, tmp_path_factory) -> Path:
    """The undisturbed dataset of ``sounds``; not to be changed."""
    out = tmp_path_factory.mktemp("encoded") / "tokens"
    encode(sounds, out, tokenizer)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_every_sound_is_in_the_dataset(encoded: Path, sounds: Path, tokenizer) -> None:
    reader = TokenReader(encoded)
    assert reader.header.dims == ("t", "c")
    assert len(reader) == len(GOOD) + 1
    assert verify(encoded) == []
    for sample in reader:
        decoded = read_audio(sounds / sample.meta["source"])
        channels, samples = decoded.samples.shape
        facts = {"sample_rate": decoded.sample_rate, "channels": channels, "samples": samples}
        assert sample.meta == {"source": sample.meta["source"], **facts}
        if sample.meta["source"] in GOOD:
            assert GOOD[sample.meta["source"]] == tuple(facts.values())
        audio = torch.from_numpy(decoded.samples)[None]
        expected = tokenizer.encode(audio, decoded.sample_rate)[0]
        np.testing.assert_array_equal(sample.codes, expected.numpy())


def test_bad_inputs_are_listed(encoded: Path) -> None:
    lines = [json.loads(line) for line in (encoded / "errors.jsonl").read_bytes().splitlines()]
    errors = {line["source"]: line["error"] for line in lines}
    assert errors.keys() == BAD.keys()
    for source, message in BAD.items():
        assert message in errors[source]


@pytest.mark.parametrize("workers", [1, 5])
def test_workers_and_threads_do_not_change_the_bytes(
    sounds, encoded, tokenizer, tmp_path, workers: int
) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - before if before < 3 else 1)
        encode(sounds, tmp_path / "out", tokenizer, workers=workers)
    finally:
        torch.set_num_threads(before)
    assert contents(tmp_path / "out") == contents(encoded)


def test_decoded_files_are_exact(encoded, tokenizer, tmp_path) -> None:
    seen: list[int] = []
    report = decode_dataset(TokenReader(encoded), tokenizer, tmp_path / "out", progress=seen.append)
    assert (report.decoded, report.failures, sum(seen)) == (len(GOOD) + 1, (), len(GOOD) + 1)
    for sample in TokenReader(encoded):
        name = Path(sample.meta["source"]).with_suffix(".wav")
        decoded = read_audio(tmp_path / "out" / name)
        rate, samples = sample.meta["sample_rate"], sample.meta["samples"]
        assert decoded.sample_rate == rate
        codes = torch.from_numpy(sample.codes)[None]
        expected = tokenizer.decode(codes, samples, rate)[0].numpy()
        assert decoded.samples.shape == expected.shape
        rounded = np.rint(expected * 32768).clip(-32768, 32767) / 32768
        np.testing.assert_array_equal(decoded.samples, rounded)
    again = decode_dataset(TokenReader(encoded), tokenizer, tmp_path / "again", workers=1)
    assert again == report
    assert contents(tmp_path / "again") == contents(tmp_path / "out")


def test_other_formats_and_fewer_codebooks(encoded, tokenizer, tmp_path) -> None:
    reader = TokenReader(encoded)
    report = decode_dataset(
        reader, tokenizer, tmp_path / "opus", file_format="opus", quality=50, num_codebooks=1
    )
    # Opus knows a few rates only, and at most 255 channels.
    lost = [name for name, (rate, _, _) in GOOD.items() if rate in (44100, 192_000, 11025, 22050)]
    assert len(report.failures) == len(lost)
    assert all("opus cannot hold" in failure for failure in report.failures)
    assert read_audio(tmp_path / "opus/deep/voice.opus").samples.shape == (1, 7777)
    decode_dataset(reader, tokenizer, tmp_path / "flac", file_format="flac")
    assert len(contents(tmp_path / "flac")) == len(GOOD) + 1


def test_wrong_formats_and_tokenizers(encoded, tokenizer, tmp_path) -> None:
    with pytest.raises(UsageError, match="no audio format 'png': choose wav, flac"):
        decode_dataset(TokenReader(encoded), tokenizer, tmp_path / "out", file_format="png")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"sample_rate": 0}, "its sample rate is 0"),
        ({"sample_rate": 1 << 40}, "its sample rate is"),
        ({"sample_rate": "fast"}, "its sample rate is 'fast'"),
        ({"sample_rate": True}, "its sample rate is True"),
        ({"channels": 2}, "it has 1 channels of codes, not 2"),
        ({"samples": 0}, "cannot be a sound of 0 samples"),
        ({"samples": 1 << 80}, "cannot be a sound of"),
        ({"samples": [1]}, r"its number of samples is \[1\]"),
    ],
)
def test_wrong_metadata_cost_one_sample(tokenizer, tmp_path, meta, message: str) -> None:
    header = Header(
        tokenizer=tokenizer.fingerprint,
        tokenizer_name="small",
        codebook_sizes=tokenizer.codebook_sizes,
        modality="audio",
    )
    codes = np.zeros((5, 1, 3), int)
    metas = [{"source": "a"}, {"source": "b", **meta}, {}]
    write_shard(tmp_path / "s", [Sample(codes, each) for each in metas], header)
    report = decode_dataset(TokenReader(tmp_path / "s"), tokenizer, tmp_path / "out")
    assert report.decoded == 2
    assert len(report.failures) == 1
    assert re.match(rf"sample 1 \(b\): .*{message}", report.failures[0])
    assert contents(tmp_path / "out").keys() == {"a.wav", "sample-000002.wav"}


KILLS = """
import os, random, signal, sys, time
from vqtok.media import list_sources
from vqtok.pipeline import encode_dataset, make_plan
from vqtok.tokenizer import Tokenizer

def encode():
    tokenizer = Tokenizer.from_pretrained(sys.argv[1])
    plan = make_plan(list_sources(sys.argv[2], "audio"), tokenizer, shard_size=2)
    encode_dataset(plan, tokenizer, sys.argv[3])

delays, kills = random.Random(0), 0
while True:
    child = os.fork()
    if child == 0:
        encode()
        os._exit(0)
    time.sleep(delays.uniform(0, 0.1 * (kills + 1)))
    os.kill(child, signal.SIGKILL)
    if os.waitpid(child, 0)[1] == 0:
        break
    kills += 1
print(kills)
"""


def test_a_killed_run_goes_on(sounds, tokenizer, tokenizer_folder, tmp_path) -> None:
    encode(sounds, tmp_path / "undisturbed", tokenizer, shard_size=2)
    command = [sys.executable, "-c", KILLS, tokenizer_folder, sounds, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 0
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_a_failed_write_ends_the_run_soon(encoded, tokenizer, tmp_path, monkeypatch) -> None:
    """The other files in the making are given up, not finished."""

    def full(*arguments, **options):
        raise VqtokError("cannot write the sound: No space left on device")

    monkeypatch.setattr("vqtok.media.audio_writer.AudioWriter.write", full)
    with pytest.raises(VqtokError, match="No space left"):
        decode_dataset(TokenReader(encoded), tokenizer, tmp_path / "out")
    assert contents(tmp_path / "out") == {}


def test_long_sounds_go_through_in_pieces(tokenizer, tmp_path, monkeypatch) -> None:
    """Neither way is more than a few seconds of samples in memory at a time."""
    from vqtok.tokenizer.stream import DecoderStream, EncoderStream

    largest = 0

    def watch(method):
        def watched(self, values):
            nonlocal largest
            result = method(self, values)
            floats = [each for each in (values, result) if each.is_floating_point()]
            largest = max(largest, *(each.numel() for each in floats))
            return result

        return watched

    monkeypatch.setattr("vqtok.media.audio.BLOCK_VALUES", 1 << 14)
    write_audio(tmp_path / "a.flac", noise(1, 24000 * 20), 24000, "flac")
    for stream in (EncoderStream, DecoderStream):
        monkeypatch.setattr(stream, "push", watch(stream.push))
    encode(tmp_path / "a.flac", tmp_path / "tokens", tokenizer)
    decode_dataset(TokenReader(tmp_path / "tokens"), tokenizer, tmp_path / "out")
    assert read_audio(tmp_path / "out/a.wav").samples.shape == (1, 24000 * 20)
    assert largest <= 1 << 14
