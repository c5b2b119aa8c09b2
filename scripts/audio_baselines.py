"""Codecs that the bundled ``audio`` tokenizer is measured against: Opus and MP3 (PyAV), codec2.

What each is asked for is a bit rate; what it takes is the size of its packets, without a container.
codec2 is the Debian package of that name (``c2enc``, ``c2dec``), for speech of 8 kHz.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqtok.media.resampling import resample

Wave = NDArray[np.float32]

BASELINES = {
    "Opus 6": ("libopus", "ogg", 6_000),
    "Opus 8": ("libopus", "ogg", 8_000),
    "Opus 12": ("libopus", "ogg", 12_000),
    "MP3 8": ("libmp3lame", "mp3", 8_000),
    "MP3 16": ("libmp3lame", "mp3", 16_000),
}
CODEC2 = {"codec2 3200": "3200"}


def baselines(speech: bool) -> list[str]:
    """The names of those that can run here."""
    codec2 = CODEC2 if speech and shutil.which("c2enc") and shutil.which("c2dec") else {}
    return [*codec2, *BASELINES]


def baseline(wave: Wave, rate: int, name: str, *, speech: bool) -> tuple[Wave, float]:
    """Through a codec and back, aligned; and the kbps of its packets."""
    if name in CODEC2:
        decoded, size = through_codec2(wave, rate, CODEC2[name])
    else:
        decoded, size = through_ffmpeg(wave, rate, name, speech)
    return aligned(decoded, wave), size * 8 / (len(wave) / rate) / 1000


def through_ffmpeg(wave: Wave, rate: int, name: str, speech: bool) -> tuple[Wave, int]:
    """What a codec of FFmpeg's makes of a sound, and the bytes of its packets."""
    import av

    codec, container, bits = BASELINES[name]
    file = io.BytesIO()
    size = 0
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = bits
        if codec == "libopus":
            stream.options = {"application": "voip" if speech else "audio", "vbr": "on"}
        frame = av.AudioFrame.from_ndarray(as_int16(wave)[None], format="s16p", layout="mono")
        frame.sample_rate = rate
        frames = av.AudioResampler(format=stream.format, layout="mono", rate=rate).resample(frame)
        for piece in [*frames, None]:
            for packet in stream.encode(piece):
                size += packet.size
                out.mux(packet)
    file.seek(0)
    with av.open(file) as coded:
        back = av.AudioResampler(format="flt", layout="mono", rate=rate)
        pieces = [part for frame in coded.decode(audio=0) for part in back.resample(frame)]
        pieces += back.resample(None)
        decoded = np.concatenate([piece.to_ndarray().reshape(-1) for piece in pieces])
    return decoded, size


def through_codec2(wave: Wave, rate: int, mode: str) -> tuple[Wave, int]:
    """What codec2 makes of a sound (with silence behind it, for its delay), and its bytes."""
    narrow = resample(np.pad(wave, (0, rate // 10))[None], rate, 8_000)[0]
    with tempfile.TemporaryDirectory() as folder:
        given, coded, back = (Path(folder) / name for name in ("in.raw", "coded", "out.raw"))
        given.write_bytes(as_int16(narrow).tobytes())
        for command in (["c2enc", mode, given, coded], ["c2dec", mode, coded, back]):
            subprocess.run(command, check=True, capture_output=True)
        heard = np.frombuffer(back.read_bytes(), np.int16).astype(np.float32) / 32768
        size = coded.stat().st_size
    return resample(heard[None], 8_000, rate)[0], round(size * len(wave) / (len(wave) + rate // 10))


def as_int16(wave: Wave) -> NDArray[np.int16]:
    """Samples of full scale 1 in 16 bits."""
    return (wave * 32767).round().clip(-32768, 32767).astype(np.int16)


def aligned(decoded: Wave, wave: Wave, longest: int = 4000) -> Wave:
    """``decoded`` moved by up to ``longest`` samples to where it fits ``wave`` best."""
    size = 1 << (len(decoded) + len(wave)).bit_length()
    product = np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(wave, size))
    correlation = np.fft.irfft(product, size)
    lags = np.r_[0 : longest + 1, -longest:0]
    lag = int(lags[np.argmax(correlation[lags])])
    moved = np.pad(decoded, (max(0, -lag), 0))[max(0, lag) :][: len(wave)]
    return np.pad(moved, (0, len(wave) - len(moved))).astype(np.float32)
