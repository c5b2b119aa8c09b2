"""Images to codes and back."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtok.errors import DataError
from vqtok.quantizers.base import check_num_codebooks
from vqtok.tokenizer.base import Tokenizer, strict_precision

# Larger images are coded in tiles of this side: the network's memory doesn't grow with them.
_TILE = 1024
# What a network that sees the whole image at once takes at most: a layer of 128 channels at full
# resolution is then 2 GB.
_MAX_WHOLE = 2048 * 2048


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 0..255 to float32 -1..1."""
    return images.float() / 127.5 - 1


def to_pixels(images: Tensor) -> Tensor:
    """float -1..1 to uint8 0..255, rounded, clipped."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


class ImageTokenizer(Tokenizer):
    """Turns images of any size into codes and back; see :class:`Tokenizer`."""

    modality = "image"
    precisions = ("float32", "bfloat16")

    @property
    def downsample(self) -> int:
        """Pixels per code, each way."""
        return self.autoencoder.encoder.downsample

    @torch.no_grad()
    def encode(
        self, images: Tensor, num_codebooks: int | None = None, rate_weight: float = 0.0
    ) -> Tensor:
        """Code a batch of images.

        Args:
            images: uint8 [B, 3, H, W], any H and W from 1.
            num_codebooks: use only the first q codebooks (default: all Q).
            rate_weight: 0 for the nearest codes. Above, codes that the prior finds likelier are
                taken instead, so that the packing "entropy" takes fewer bits: a bit is worth this
                many percent of the variance of the first codebook's embeddings, in squared distance
                from the latents. At most 100; 0.05 to 0.3 is useful. Needs a prior.

        Returns:
            int64 [B, h, w, q] on the device of the images, h = ceil(H / downsample).

        Raises:
            ValueError: wrong shape or dtype, or ``num_codebooks`` or ``rate_weight`` out of range.
            UsageError: ``rate_weight`` where there is no prior, or for a quantizer whose codebooks
                do not add up.
            DataError: the image is larger than a network without locality takes.
        """
        if not isinstance(images, Tensor):
            raise ValueError(f"images must be a torch tensor, not {type(images).__name__}")
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
            raise ValueError(
                f"images must be uint8 [B, 3, H, W], not {images.dtype} {list(images.shape)}"
            )
        height, width = int(images.shape[2]), int(images.shape[3])
        if height == 0 or width == 0:
            raise ValueError(f"images of {width}x{height} pixels hold nothing to encode")
        used = check_num_codebooks(num_codebooks, self.num_codebooks)
        rows, columns = -(-height // self.downsample), -(-width // self.downsample)
        codes = images.new_empty((len(images), rows, columns, used), dtype=torch.int64)
        choice = self.choice(used, rate_weight)
        for image, out in zip(images, codes, strict=True):
            if choice is None:
                for place, latents in self._latents(image):
                    result = self.autoencoder.quantizer(latents, num_codebooks=used)
                    out[place[0], place[1]] = result.codes[0]
            else:
                whole = torch.empty(rows, columns, self.autoencoder.quantizer.dim)
                for place, latents in self._latents(image):
                    whole[place[0], place[1]] = latents[0]
                out.copy_(choice(whole))
        return codes

    def _latents(self, image: Tensor) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
        """float32 [1, a, b, D] of each tile of an image [3, H, W], and which codes they are."""
        rows, columns = (-(-int(side) // self.downsample) for side in image.shape[1:])
        for tile, inside, place in self._tiles(rows, columns, self._encoder_margin):
            with strict_precision(self.device, self.precision):
                latents = self.autoencoder.encoder(self._crop(image, tile)).float()
                yield place, latents[:, inside[0], inside[1]]

    @torch.no_grad()
    def decode(self, codes: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Rebuild a batch of images.

        Args:
            codes: integer [B, h, w, q], 1 <= q <= Q.
            size: (H, W) of the images that were coded; default: h and w times ``downsample``.

        Returns:
            uint8 [B, 3, H, W] on the device of the codes.

        Raises:
            ValueError: a code is out of range, or the size doesn't belong to h x w codes.
        """
        if not isinstance(codes, Tensor) or codes.ndim != 4:
            shape = list(getattr(codes, "shape", ()))
            raise ValueError(f"codes must be a torch tensor [B, h, w, q], not {shape}")
        rows, columns = int(codes.shape[1]), int(codes.shape[2])
        height, width = size or (rows * self.downsample, columns * self.downsample)
        if (-(-height // self.downsample), -(-width // self.downsample)) != (rows, columns):
            raise ValueError(
                f"{rows}x{columns} codes at downsample {self.downsample} cannot be an image of "
                f"height {height} and width {width}"
            )
        full = (len(codes), 3, rows * self.downsample, columns * self.downsample)
        images = torch.empty(full, dtype=torch.uint8, device=codes.device)
        with strict_precision(self.device, self.precision):
            for image_codes, out in zip(codes, images, strict=True):
                for tile, inside, place in self._tiles(rows, columns, self._decoder_margin):
                    tile_codes = image_codes[tile[0], tile[1]].to(self.device)
                    quantized = self.autoencoder.quantizer.embed(tile_codes)[None]
                    decoded = self.autoencoder.decoder(quantized)
                    out[:, self._pixels(place[0]), self._pixels(place[1])] = to_pixels(
                        decoded[0, :, self._pixels(inside[0]), self._pixels(inside[1])]
                    )
        return images[:, :, :height, :width]

    @property
    def _encoder_margin(self) -> int | None:
        return self._margin(self.autoencoder.encoder.context)

    @property
    def _decoder_margin(self) -> int | None:
        return self._margin(self.autoencoder.decoder.context)

    def _margin(self, context: int | None) -> int | None:
        return None if context is None else -(-context // self.downsample)

    def _pixels(self, codes: slice) -> slice:
        return slice(codes.start * self.downsample, codes.stop * self.downsample)

    def _tiles(
        self, rows: int, columns: int, margin: int | None
    ) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice], tuple[slice, slice]]]:
        """Cut a grid of codes into tiles: what to compute, what of it to keep, where it goes."""
        if margin is None:
            pixels = rows * columns * self.downsample**2
            if pixels > _MAX_WHOLE:
                raise DataError(
                    f"an image of {pixels:,} pixels is too large: tokenizer {self.name!r} sees an "
                    f"image as a whole, at most {_MAX_WHOLE:,} pixels; scale it down"
                )
            yield ((slice(0, rows), slice(0, columns)),) * 3
            return
        side = _TILE // self.downsample
        for vertical in _spans(rows, side, margin):
            for horizontal in _spans(columns, side, margin):
                tile, inside, place = zip(vertical, horizontal, strict=True)
                yield tile, inside, place

    def _crop(self, image: Tensor, tile: tuple[slice, slice]) -> Tensor:
        """The pixels of a uint8 image [3, H, W] under a tile of codes, as the encoder takes them.

        Where the tile is larger than what is left of the image, its edges are repeated outwards.
        """
        rows, columns = self._pixels(tile[0]), self._pixels(tile[1])
        crop = to_unit_range(image[None, :, rows, columns].to(self.device))
        missing_rows = rows.stop - rows.start - crop.shape[2]
        missing_columns = columns.stop - columns.start - crop.shape[3]
        crop = F.pad(crop, (0, missing_columns, 0, missing_rows), mode="replicate")
        return crop.contiguous(memory_format=torch.channels_last)


def _spans(length: int, side: int, margin: int) -> Iterator[tuple[slice, slice, slice]]:
    """Cover 0..length with spans of ``side``: (with margins, the span inside that, the span)."""
    for start in range(0, length, side):
        stop = min(start + side, length)
        low, high = max(0, start - margin), min(length, stop + margin)
        yield slice(low, high), slice(start - low, stop - low), slice(start, stop)
