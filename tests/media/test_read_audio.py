"""Every format comes back whole and exact; what is cut, damaged or absurd is refused."""

from __future__ import annotations

import io
import os
import sys
import tarfile
import wave
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
import soundfile

from vqtok.errors import DataError
from vqtok.media import list_sources, read_audio, resample
from vqtok.media.audio import AudioReader
from vqtok.media.quiet import quiet_mpg123
from vqtok.media.resampling import resampled_length

RATE = 44100


def sound(channels: int = 2, samples: int = 30_001, seed: int = 0) -> np.ndarray:
    """A chord with a little noise, float32 [C, n] within 0.6, on the 16-bit grid."""
    rng = np.random.default_rng(seed)
    chord = np.zeros((channels, samples))
    for frequency in rng.uniform(0.02, 0.1, 5):  # radians a sample
        chord += 0.1 * np.sin(frequency * np.arange(samples) + rng.uniform(0, 6, (channels, 1)))
    chord += 0.01 * rng.standard_normal((channels, samples))
    return (np.rint(chord * 32768) / 32768).astype(np.float32)


def file_of(samples: np.ndarray, container: str, subtype: str | None = None, rate=RATE) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples.T, rate, format=container, subtype=subtype)
    return stream.getvalue()


def m4a_of(samples: np.ndarray, rate: int = RATE) -> bytes:
    import av

    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as out:
        layout = {1: "mono", 2: "stereo"}[len(samples)]
        track = out.add_stream("aac", rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", layout)
        frame.sample_rate, frame.pts = rate, 0
        for packet in [*track.encode(frame), *track.encode(None)]:
            out.mux(packet)
    return stream.getvalue()


def video_of(
    samples: np.ndarray | None, rate: int, container: str, audio: str, video: str
) -> bytes:
    """Half a second of grey, with stereo sound or none."""
    import av

    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as out:
        picture = out.add_stream(video, rate=25)
        picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
        track = out.add_stream(audio, rate=rate, layout="stereo") if samples is not None else None
        for shade in range(12):
            grey = np.full((64, 64, 3), shade, np.uint8)
            for packet in picture.encode(av.VideoFrame.from_ndarray(grey, "rgb24")):
                out.mux(packet)
        for packet in picture.encode(None):
            out.mux(packet)
        if track is not None:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", "stereo")
            frame.sample_rate, frame.pts = rate, 0
            frames = av.AudioResampler(track.format, "stereo", rate).resample(frame)
            for piece in [*frames, None]:
                for packet in track.encode(piece):
                    out.mux(packet)
    return stream.getvalue()


@pytest.mark.parametrize("container", ["WAV", "FLAC", "AIFF", "AU", "CAF", "W64", "RF64"])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_lossless_files_are_exact(container: str, channels: int) -> None:
    samples = sound(channels)
    decoded = read_audio(file_of(samples, container, "PCM_16"))
    np.testing.assert_array_equal(decoded.samples, samples)
    assert (decoded.sample_rate, decoded.notes) == (RATE, ())
    assert decoded.samples.dtype == np.float32


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_sample_types(subtype: str) -> None:
    samples = sound()
    error = np.abs(read_audio(file_of(samples, "WAV", subtype)).samples - samples).max()
    assert error <= {"PCM_U8": 1 / 128, "ULAW": 1 / 50}.get(subtype, 0)


@pytest.mark.parametrize("samples", [1, 2, 1000, 30_001])
@pytest.mark.parametrize(
    ("container", "subtype", "rate"),
    [
        ("OGG", "VORBIS", 44100),
        ("OGG", "OPUS", 48000),
        ("OGG", "OPUS", 24000),
        ("MP3", None, 44100),
        ("MP3", None, 8000),
    ],
)
def test_lossy_files_have_their_length(container, subtype, rate, samples) -> None:
    original = sound(samples=samples)
    decoded = read_audio(file_of(original, container, subtype, rate))
    assert decoded.samples.shape == (2, samples)
    assert (decoded.sample_rate, decoded.notes) == (rate, ())
    if samples > 10_000:  # the same sound, and in place
        match = np.corrcoef(decoded.samples.ravel(), original.ravel())[0, 1]
        assert match > 0.9


def test_containers_through_pyav() -> None:
    samples = sound(samples=44_100)  # mp4 files tell their length in milliseconds
    decoded = read_audio(m4a_of(samples))
    assert decoded.samples.shape == samples.shape
    assert decoded.sample_rate == RATE
    assert np.corrcoef(decoded.samples.ravel(), samples.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("container", "audio", "video"),
    [("mp4", "aac", "mpeg4"), ("matroska", "libopus", "mpeg4"), ("webm", "libopus", "libvpx")],
)
def test_the_sound_of_videos(container, audio, video) -> None:
    samples, rate = sound(samples=48_000), 48_000
    decoded = read_audio(video_of(samples, rate, container, audio, video))
    assert (decoded.sample_rate, decoded.samples.shape[0]) == (rate, 2)
    # What is no mp4 file has no exact length: the encoder's delay and last frame stay.
    assert 48_000 <= decoded.samples.shape[1] < 50_100
    best = max(
        np.corrcoef(decoded.samples[0, lag : lag + 46_000], samples[0, :46_000])[0, 1]
        for lag in range(0, 1100, 8)
    )
    assert best > 0.9


def test_a_video_without_sound_is_refused() -> None:
    data = video_of(None, RATE, "mp4", "aac", "mpeg4")
    with pytest.raises(DataError, match="there is no sound in it"):
        read_audio(data)


def test_lists_of_other_files_are_not_followed(tmp_path) -> None:
    (tmp_path / "a.m4a").write_bytes(m4a_of(sound()))
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:3,\na.m4a\n")
    with pytest.raises(DataError, match=r"list\.m3u8: no sound file that is read"):
        read_audio(tmp_path / "list.m3u8")


def test_without_pyav_the_message_says_what_to_install(monkeypatch) -> None:
    data = m4a_of(sound())
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match=r"pip install 'vqtok\[av\]'"):
        read_audio(data)


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_cut_container_is_refused(kept: float) -> None:
    data = m4a_of(sound(samples=441_000))
    with pytest.raises(DataError, match=r"cut short|damaged|no sound"):
        read_audio(data[: int(len(data) * kept)])


@pytest.mark.parametrize("kept", [0.999, 0.5, 0.01])
@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        *((container, None) for container in ("FLAC", "AIFF", "AU", "CAF", "W64", "RF64")),
    ],
)
def test_cut_files_are_refused(container, subtype, kept: float) -> None:
    data = file_of(sound(), container, subtype)
    with pytest.raises(DataError, match=r"cut short|truncated"):
        read_audio(data[: int(len(data) * kept)])


def test_a_cut_mp3_file_is_refused() -> None:
    data = file_of(sound(samples=200_000), "MP3")
    with pytest.raises(DataError, match="cut short"):
        read_audio(data[: len(data) // 2])
    notes = read_audio(data[: int(len(data) * 0.99)]).notes
    assert "of the 200,000 samples that it announces" in notes[0]


def test_a_short_cut_mp3_file_is_refused() -> None:
    data = file_of(sound(samples=40_000), "MP3")
    assert read_audio(data).notes == ()
    with pytest.raises(DataError, match=r"of the 40,000 samples that it announces"):
        read_audio(data[: len(data) // 2])


def test_damaged_mp3_files_are_told_by_us_alone(capfd) -> None:
    """libmpg123 writes to stderr; what others write there meanwhile stays."""
    data = file_of(sound(samples=200_000), "MP3")
    for damaged in (data[: len(data) // 2], data[:100], data[:1000] + bytes(600) + data[1600:]):
        with suppress(DataError):
            read_audio(damaged)
    assert capfd.readouterr().err == ""
    with quiet_mpg123(), quiet_mpg123():
        os.write(2, b"Note: of libmpg123\nof somebody else\n")
    os.write(2, b"Note: later\n")
    assert capfd.readouterr().err == "of somebody else\nNote: later\n"


def test_threads_read_mp3_files_at_once(capfd) -> None:
    data = file_of(sound(samples=100_000), "MP3")
    whole = read_audio(data).samples
    with ThreadPoolExecutor(8) as pool:
        again = list(pool.map(lambda _: read_audio(data).samples, range(24)))
    assert all(np.array_equal(samples, whole) for samples in again)
    os.write(2, b"still here")
    assert capfd.readouterr().err == "still here"


def test_an_ogg_file_without_sound_may_be_cut_short() -> None:
    data = file_of(sound(samples=2_000), "OGG", "VORBIS")
    headers = data[: data.rindex(b"OggS")]
    with pytest.raises(DataError, match="it holds no samples: it is cut short or empty"):
        read_audio(headers)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_file_without_its_end_is_noted(subtype: str) -> None:
    data = file_of(sound(samples=200_000), "OGG", subtype, 48000)
    decoded = read_audio(data[: len(data) // 2])
    assert 0 < decoded.samples.shape[1] < 200_000
    assert decoded.notes == ("the stream has no end mark: the file may have been cut short",)


def test_damage_inside_is_refused() -> None:
    data = bytearray(file_of(sound(), "FLAC"))
    data[len(data) // 2 : len(data) // 2 + 500] = b"\xff" * 500
    with pytest.raises(DataError, match=r"truncated or damaged|cut short"):
        read_audio(bytes(data))


def test_a_streamed_wav_file_is_read_to_its_end() -> None:
    samples = sound()
    data = bytearray(file_of(samples, "WAV", "PCM_16"))
    place = data.find(b"data")
    data[4:8] = data[place + 4 : place + 8] = b"\xff" * 4
    decoded = read_audio(bytes(data))
    np.testing.assert_array_equal(decoded.samples, samples)
    assert "does not say how long it is" in decoded.notes[0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(value: float, tmp_path) -> None:
    samples = sound(samples=600_000)
    samples[1, 551_250] = value
    soundfile.write(tmp_path / "a.wav", samples.T, RATE, subtype="FLOAT")
    with pytest.raises(DataError, match=r"a\.wav: sample 551,250 \(12\.500 s\) is not a finite"):
        read_audio(tmp_path / "a.wav")


def test_integers_stored_as_floats_are_refused() -> None:
    with pytest.raises(DataError, match="times full scale: not a sound"):
        read_audio(file_of(sound() * 32768, "WAV", "FLOAT"))


def test_loudness_is_untouched() -> None:
    for gain in (1e-4, 1, 7):  # silence nearly, ordinary, and far beyond full scale
        samples = sound() * np.float32(gain)
        np.testing.assert_array_equal(read_audio(file_of(samples, "WAV", "FLOAT")).samples, samples)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"Dear diary, today I was renamed to .wav.\n" * 99, "no sound file that is read"),
        (b"RIFF\xff\xff\xff\xffWAVEfmt ", "truncated or damaged"),
        (file_of(np.zeros((2, 0)), "WAV", "PCM_16"), "it holds no samples"),
        (file_of(sound(), "WAV", "PCM_16", rate=999), "its sample rate is 999 Hz"),
        (file_of(np.zeros((65, 9), np.float32), "WAV"), "65 channels, more than 64"),
    ],
)
def test_what_is_no_sound_is_refused(content: bytes, message: str, tmp_path) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.wav: .*{message}"):
        read_audio(tmp_path / "a.wav")


def test_missing_files_and_folders(tmp_path) -> None:
    with pytest.raises(DataError, match=r"a\.wav: cannot be read: No such file"):
        read_audio(tmp_path / "a.wav")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_audio(tmp_path)


def test_any_bytes_are_sound_or_refused() -> None:
    """Random damage to real headers: a result or a DataError, nothing else."""
    rng = np.random.default_rng(0)
    originals = [file_of(sound(samples=500), c) for c in ("WAV", "FLAC", "OGG", "AIFF", "CAF")]
    refused = 0
    for trial in range(300):
        data = bytearray(originals[trial % len(originals)])
        for place in rng.integers(0, min(len(data), 200), 3):
            data[place] = rng.integers(256)
        try:
            assert read_audio(bytes(data)).samples.size
        except DataError:
            refused += 1
    assert 0 < refused < 300


def test_members_of_archives_are_read_in_place(tmp_path) -> None:
    samples = sound(samples=700_000)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, content in {"x.flac": samples, "y.wav": samples[:, :9]}.items():
            data = file_of(content, name[2:].upper(), "PCM_16")
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    sources = list_sources(tmp_path / "a.tar", "audio")
    np.testing.assert_array_equal(read_audio(sources[0]).samples, samples)
    np.testing.assert_array_equal(read_audio(sources[1]).samples, samples[:, :9])


def test_blocks_are_bounded(tmp_path) -> None:
    samples = sound(8, 300_000)
    soundfile.write(tmp_path / "a.wav", samples.T, RATE, subtype="PCM_16")
    with AudioReader(tmp_path / "a.wav") as reader:
        blocks = list(reader.blocks())
    assert max(block.size for block in blocks) <= 1 << 19
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), samples)


def test_against_the_standard_library() -> None:
    stream = io.BytesIO()
    values = np.arange(-32768, 32768, dtype="<i2")
    with wave.open(stream, "wb") as file:
        file.setparams((1, 2, 22050, 0, "NONE", ""))
        file.writeframes(values.tobytes())
    decoded = read_audio(stream.getvalue())
    np.testing.assert_array_equal(decoded.samples[0], values.astype(np.float32) / 32768)


def test_reading_at_another_rate() -> None:
    samples = sound()
    decoded = read_audio(file_of(samples, "WAV", "PCM_16"), sample_rate=24000)
    assert decoded.sample_rate == 24000
    assert decoded.samples.shape == (2, resampled_length(30_001, RATE, 24000))
    np.testing.assert_array_equal(decoded.samples, resample(samples, RATE, 24000))
