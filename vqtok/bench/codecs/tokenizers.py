"""Tokenizers: token files of one sample each."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vqtok.bench.codecs.base import Array, Coded, Coder, Curve, Measured, measured, most
from vqtok.bench.results import Sample
from vqtok.errors import UsageError
from vqtok.tokenizer import AudioTokenizer, ImageTokenizer, Tokenizer
from vqtok.tokens import Header, ShardReader, write_shard
from vqtok.tokens import Sample as TokenSample
from vqtok.tokens.header import MAX_CODED_SIZE, PACKINGS
from vqtok.tokens.prior import PRIOR, is_bundled

FILE = "sample.safetensors"

RULE = (
    "each sample as a token file of its own (a shard of vqtok's format: header, index, checksums, "
    "sizes and codes; no name), decoded from that file; the tokenizer itself isn't counted"
)


RATE_WEIGHT = 0.15
"""Of the curve with codes chosen by their bits, too: far above, fewer codebooks are better."""


@dataclass(frozen=True)
class Setting:
    """How codes are made, and the curves that show them: packing tier to name."""

    name: str
    num_codebooks: int
    rate_weight: float
    curves: dict[str, str]


class TokenizerCoder(Coder):
    """A tokenizer: a curve for each packing tier, a setting for each number of codebooks.

    With a prior, one more curve, of codes chosen by distance and bits (``rate_weight``).
    """

    kind = "tokenizer"

    def __init__(self, name: str, tokenizer: Tokenizer, settings: int | None = None) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.fingerprint = tokenizer.fingerprint
        total = tokenizer.num_codebooks
        counts = range(1, total + 1)
        if settings is not None and total > settings:
            counts = sorted({round(x) for x in np.linspace(1, total, settings)})  # type: ignore[assignment]
        largest = max(tokenizer.codebook_sizes)
        tiers = [tier for tier in PACKINGS if tier != "entropy" or largest <= MAX_CODED_SIZE]
        names = {tier: f"{name} {tier}" for tier in tiers}
        numbers = [Setting(_setting(count), count, 0.0, names) for count in counts]
        self.settings = {setting.name: setting for setting in numbers}
        curves = [
            Curve(
                names[tier],
                f"{_tier(tier, tokenizer)}: {RULE}",
                tuple(self.settings),
            )
            for tier in tiers
        ]
        if settings is None and "entropy" in tiers and _can_weigh(tokenizer):
            names = {"entropy": f"{name} entropy, weighted"}
            weighted = [
                Setting(f"{setting.name}, rate weight {RATE_WEIGHT:g}", count, RATE_WEIGHT, names)
                for setting, count in zip(numbers, counts, strict=True)
            ]
            self.settings |= {setting.name: setting for setting in weighted}
            curves.append(
                Curve(
                    names["entropy"],
                    f"codes chosen by distance and bits, {_tier('entropy', tokenizer)}: {RULE}",
                    tuple(setting.name for setting in weighted),
                )
            )
        self.curves = tuple(curves)
        prior = tokenizer.prior
        self.identity = {
            "fingerprint": tokenizer.fingerprint,
            "prior": prior.digest if prior else "",
            "settings": [[each.num_codebooks, each.rate_weight] for each in self.settings.values()],
            "device": tokenizer.device.type,
        }

    def code(self, original: Array, sample: Sample) -> Iterator[Coded]:
        inputs = _batch(original)
        for setting in self.settings.values():
            with measured() as encoding:
                codes = self._encode(inputs, sample, setting)
            decoded: Array | None = None
            network = Measured()
            for tier, curve in setting.curves.items():
                with self._folder() as folder:
                    with measured() as packing:
                        path = folder / FILE
                        header = self._header(setting, tier)
                        write_shard(path, [TokenSample(codes, _meta(sample))], header)
                    with measured() as reading:
                        found = ShardReader(path).read(0).codes
                    data = path.read_bytes()
                if not np.array_equal(found, codes):
                    raise AssertionError(f"{curve}: other codes came back from the file")
                if decoded is None:  # the same codes whatever the tier
                    with measured() as network:
                        decoded = self._decode(found, sample)
                yield Coded(
                    curve,
                    setting.name,
                    data,
                    decoded,
                    encoding.seconds + packing.seconds,
                    reading.seconds + network.seconds,
                    most(encoding, packing, reading, network),
                )

    def decode(self, setting: str, data: bytes, sample: Sample) -> Array:
        return self._decode(self.codes(data), sample)

    def codes(self, data: bytes) -> NDArray[np.int64]:
        """The codes [*dims, q] in a token file."""
        return self._read(data)[0]

    def code_bytes(self, data: bytes) -> int:
        """The bytes of a token file that hold the codes alone."""
        return self._read(data)[1]

    def _read(self, data: bytes) -> tuple[NDArray[np.int64], int]:
        with self._folder() as folder:
            (folder / FILE).write_bytes(data)
            shard = ShardReader(folder / FILE)
            return shard.read(0).codes, shard.token_bytes

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """A folder for one file, with the prior that it may name."""
        with tempfile.TemporaryDirectory() as folder:
            prior = self.tokenizer.prior
            if prior is not None and not is_bundled(prior):
                prior.save(Path(folder, PRIOR))
            yield Path(folder)

    def _header(self, setting: Setting, tier: str) -> Header:
        prior = self.tokenizer.prior if tier == "entropy" else None
        return Header(
            tokenizer=self.tokenizer.fingerprint,
            tokenizer_name=self.tokenizer.name,
            codebook_sizes=self.tokenizer.codebook_sizes[: setting.num_codebooks],
            modality=self.tokenizer.modality,
            packing=tier,
            prior=prior.digest if prior else "",
            rate_weight=setting.rate_weight,
        )

    def _encode(self, inputs: torch.Tensor, sample: Sample, setting: Setting) -> NDArray[np.int64]:
        how: Any = {
            "num_codebooks": setting.num_codebooks,
            "rate_weight": setting.rate_weight,
        }
        if isinstance(self.tokenizer, AudioTokenizer):
            codes = self.tokenizer.encode(inputs, sample.sample_rate, **how)
        else:
            codes = self.tokenizer.encode(inputs, **how)
        found: NDArray[np.int64] = codes[0].cpu().numpy()
        return found

    def _decode(self, codes: NDArray[np.int64], sample: Sample) -> Array:
        batch = torch.from_numpy(codes)[None]
        if isinstance(self.tokenizer, ImageTokenizer):
            assert sample.height is not None
            assert sample.width is not None
            pixels = self.tokenizer.decode(batch, size=(sample.height, sample.width))
            return np.ascontiguousarray(pixels[0].permute(1, 2, 0).cpu().numpy())
        assert sample.seconds is not None
        assert sample.sample_rate is not None
        length = round(sample.seconds * sample.sample_rate)
        sound = self.tokenizer.decode(batch, length, sample.sample_rate, sample.channels)
        return np.ascontiguousarray(sound[0].T.cpu().numpy())


def _can_weigh(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer has a prior and codes that may be chosen by it."""
    try:
        return tokenizer.prior is not None and tokenizer.choice(1, RATE_WEIGHT) is not None
    except UsageError:  # a quantizer whose codes don't add up
        return False


def _setting(count: int) -> str:
    return f"{count} codebook{'' if count == 1 else 's'}"


def _tier(tier: str, tokenizer: Tokenizer) -> str:
    if tier == "plain":
        return "whole 8, 16 or 32 bits a code"
    if tier == "bits":
        return "as few bits as a code needs"
    return "entropy coded, " + ("with the tokenizer's prior" if tokenizer.prior else "adaptively")


def _batch(original: Array) -> torch.Tensor:
    if original.dtype == np.uint8:
        return torch.from_numpy(original).permute(2, 0, 1)[None]
    return torch.from_numpy(np.ascontiguousarray(original.T))[None]


def _meta(sample: Sample) -> dict[str, Any]:
    if sample.seconds is None:
        return {"size": [sample.height, sample.width]}
    assert sample.sample_rate is not None
    samples = round(sample.seconds * sample.sample_rate)
    return {"sample_rate": sample.sample_rate, "channels": sample.channels, "samples": samples}
