"""Sound formats: Opus and MP3 through PyAV, Codec 2 through its command line tools."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vqtok.bench.codecs.base import Array, Baseline
from vqtok.bench.optional import need
from vqtok.bench.results import Sample
from vqtok.errors import DataError, UsageError
from vqtok.media.resampling import resample

AV = ("av>=14", "av")


class AvFormat(Baseline):
    """A codec of FFmpeg's in a container that keeps its delay; values are bits per second."""

    def __init__(
        self,
        name: str,
        codec: str,
        container: str,
        rates: tuple[int, ...],
        kbits: tuple[int, ...],
        options: dict[str, str],
    ) -> None:
        av = need(*AV, f"format {name}")
        description = f"{codec} of FFmpeg at the rates asked for, {container} files"
        values = {f"{kbps} kbit/s": kbps * 1000 for kbps in kbits}
        super().__init__(name, description, values, f"PyAV {av.__version__}")
        self._codec, self._container, self._rates = codec, container, rates
        self._options = options
        self.identity |= {"options": options}

    def encode(self, value: int, original: Array, sample: Sample) -> bytes:
        import av

        channels = original.shape[1]
        if channels > 2:
            raise DataError(f"{channels} channels, {self.name} is measured for 1 and 2 only")
        assert sample.sample_rate is not None
        rate = min((r for r in self._rates if r >= sample.sample_rate), default=max(self._rates))
        layout = "mono" if channels == 1 else "stereo"
        samples = resample(np.ascontiguousarray(original.T), sample.sample_rate, rate)
        file = io.BytesIO()
        with av.open(file, "w", format=self._container) as out:
            stream: Any = out.add_stream(self._codec, rate=rate, layout=layout)
            stream.bit_rate = value
            stream.options = self._options
            whole = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(samples.clip(-1, 1)), format="fltp", layout=layout
            )
            whole.sample_rate, whole.time_base, whole.pts = rate, Fraction(1, rate), 0
            frames = av.AudioResampler(format=stream.format, layout=layout, rate=rate)
            for piece in [*frames.resample(whole), *frames.resample(None), None]:
                for packet in stream.encode(piece):
                    out.mux(packet)
        return file.getvalue()

    def decode(self, setting: str, data: bytes, sample: Sample) -> Array:
        import av

        assert sample.channels is not None
        assert sample.sample_rate is not None
        layout = "mono" if sample.channels == 1 else "stereo"
        with av.open(io.BytesIO(data), "r") as file:
            rate = file.streams.audio[0].rate
            convert = av.AudioResampler(format="fltp", layout=layout, rate=rate)
            pieces = [part for frame in file.decode(audio=0) for part in convert.resample(frame)]
            pieces += convert.resample(None)
        decoded = np.concatenate([piece.to_ndarray() for piece in pieces], axis=1)
        return fitted(resample(decoded, rate, sample.sample_rate).T, sample)


class Codec2(Baseline):
    """Speech at 8 kHz and up to 3.2 kbit/s; values are modes of ``c2enc``."""

    def __init__(self) -> None:
        if not _tools():
            raise UsageError(
                "format codec2 needs the programs c2enc and c2dec, in Debian: apt install codec2"
            )
        values = {f"mode {mode}": mode for mode in ("700C", "1200", "1600", "2400", "3200")}
        description = "Codec 2 by c2enc, speech at 8 kHz, .c2 files; the codec's delay is left in"
        super().__init__("codec2", description, values, "")

    def encode(self, value: str, original: Array, sample: Sample) -> bytes:
        if original.shape[1] != 1:
            raise DataError(f"{original.shape[1]} channels, codec2 codes 1")
        assert sample.sample_rate is not None
        samples = resample(np.ascontiguousarray(original.T), sample.sample_rate, 8000)[0]
        raw = (samples.clip(-1, 1) * 32767).round().astype("<i2").tobytes()
        return _through("c2enc", value, raw, ".raw", ".c2")

    def decode(self, setting: str, data: bytes, sample: Sample) -> Array:
        assert sample.sample_rate is not None
        raw = _through("c2dec", self.values[setting], data, ".c2", ".raw")
        samples = np.frombuffer(raw, "<i2").astype(np.float32)[None] / np.float32(32768)
        decoded: Array = resample(samples, 8000, sample.sample_rate).T
        return fitted(decoded, sample)


def fitted(decoded: Array, sample: Sample) -> Array:
    """float32 [n, C] cut, or filled up with silence, to the length of the original."""
    assert sample.seconds is not None
    assert sample.sample_rate is not None
    length = round(sample.seconds * sample.sample_rate)
    missing = max(0, length - len(decoded))
    found: Array = np.ascontiguousarray(
        np.pad(decoded[:length], ((0, missing), (0, 0))), dtype=np.float32
    )
    return found


def _tools() -> bool:
    return all(shutil.which(tool) for tool in ("c2enc", "c2dec"))


def _through(tool: str, mode: str, data: bytes, start: str, end: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, f"in{start}"), Path(folder, f"out{end}")
        source.write_bytes(data)
        done = subprocess.run([tool, mode, source, out], capture_output=True, check=False)
        if done.returncode:
            raise DataError(f"{tool} {mode} failed: {done.stderr.decode(errors='replace')[-200:]}")
        return out.read_bytes()


def _opus() -> AvFormat:
    rates = (8000, 12000, 16000, 24000, 48000)
    kbits = (6, 8, 10, 12, 16, 24, 32)
    return AvFormat("opus", "libopus", "ogg", rates, kbits, {"application": "audio", "vbr": "on"})


def _mp3() -> AvFormat:
    rates = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
    return AvFormat("mp3", "libmp3lame", "mp3", rates, (8, 16, 24, 32, 48, 64), {})


SOUNDS: dict[str, Callable[[], Baseline]] = {"opus": _opus, "mp3": _mp3, "codec2": Codec2}
