"""Random crops of a folder of photos, each batch a pure function of (seed, step).

That is what makes a resumed run bit-exact: there is no generator state to restore.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from vqtok.errors import DataError, UsageError
from vqtok.media.images import read_image
from vqtok.media.sources import Source
from vqtok.training.data import prefetch


class PhotoCrops:
    """Square crops at random places, scales and mirrorings.

    Half of the crops are pixels of the photo as it is; the others cover up to ``max_scale``
    times the side and are resampled down (Lanczos), which shows the model sharper detail.

    Args:
        sources: the photos. Those smaller than a crop, or not readable, are left out and named
            in ``skipped``.
        size: side of a crop in pixels.
        batch_size: crops in a batch.
        seed: of all choices.
        max_scale: the largest reduction.
        cache_bytes: decoded photos are kept in memory up to this many bytes; the others are
            decoded again for every crop.
    """

    def __init__(
        self,
        sources: list[Source],
        *,
        size: int,
        batch_size: int,
        seed: int = 0,
        max_scale: float = 3.0,
        cache_bytes: int = 4 << 30,
    ) -> None:
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.max_scale = max_scale
        self.skipped: list[str] = []
        self._cache: dict[int, Image.Image] = {}
        self._cache_room = cache_bytes
        self._lock = threading.Lock()
        self.sources = self._usable(sources)
        if not self.sources:
            raise UsageError(
                f"none of the {len(sources)} images is readable and at least {size} pixels wide "
                f"and high; training crops need that"
            )

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def digest(self) -> str:
        """SHA-256 of the photos' names and sizes, and of how they are cropped."""
        photos = [[source.uri, source.size] for source in self.sources]
        facts = [photos, self.size, self.batch_size, self.seed, self.max_scale]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def batch(self, step: int) -> Tensor:
        """The crops of a step: uint8 [batch_size, 3, size, size]."""
        generator = np.random.default_rng([self.seed, step])
        crops = np.stack([self._crop(generator) for _ in range(self.batch_size)])
        return torch.from_numpy(crops).permute(0, 3, 1, 2)

    def batches(self, start: int, stop: int, stride: int = 1) -> Iterator[Tensor]:
        """The batches of range(start, stop, stride), prepared ahead by a background thread."""
        return prefetch(self.batch, range(start, stop, stride))

    def _crop(self, generator: np.random.Generator) -> npt.NDArray[np.uint8]:
        photo = self._photo(int(generator.integers(len(self.sources))))
        width, height = photo.size
        scale = 1.0
        if generator.random() < 0.5:
            widest = min(self.max_scale, width / self.size, height / self.size)
            scale = float(generator.uniform(1.0, max(1.0, widest)))
        side = min(int(self.size * scale), width, height)
        left = int(generator.integers(width - side + 1))
        top = int(generator.integers(height - side + 1))
        mirrored = generator.random() < 0.5
        box = (left, top, left + side, top + side)
        if side == self.size:
            crop = photo.crop(box)
        else:
            crop = photo.resize((self.size, self.size), Image.Resampling.LANCZOS, box=box)
        pixels = np.asarray(crop, dtype=np.uint8)
        return pixels[:, ::-1] if mirrored else pixels

    def _photo(self, index: int) -> Image.Image:
        cached = self._cache.get(index)
        if cached is not None:
            return cached
        photo = Image.fromarray(read_image(self.sources[index]).pixels)
        self._remember(index, photo)
        return photo

    def _remember(self, index: int, photo: Image.Image) -> None:
        with self._lock:
            size = photo.width * photo.height * 3
            if index not in self._cache and size <= self._cache_room:
                self._cache_room -= size
                self._cache[index] = photo

    def _usable(self, sources: list[Source]) -> list[Source]:
        kept: list[Source] = []
        for source in tqdm(sources, desc="read", unit="photo", leave=False, disable=None):
            try:
                photo = Image.fromarray(read_image(source).pixels)
            except DataError as error:
                self.skipped.append(str(error))
                continue
            if min(photo.size) < self.size:
                self.skipped.append(f"{source.uri}: {photo.width}x{photo.height} is too small")
                continue
            self._remember(len(kept), photo)
            kept.append(source)
        return kept
