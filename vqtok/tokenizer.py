"""Images to codes and back: what users import, and what the command line runs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from vqtok.autoencoders import Autoencoder, build_autoencoder
from vqtok.errors import DataError, UsageError
from vqtok.nn import channels_last
from vqtok.quantizers.base import check_num_codebooks

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
CONFIG_FORMAT = 1

# Larger images are coded in tiles of this side: the network's memory doesn't grow with them.
_TILE = 1024

_CONFIG_TYPES: dict[str, type] = {
    "name": str,
    "modality": str,
    "fingerprint": str,
    "autoencoder": dict,
    "training": dict,
}
# What a config or a weights file can make the constructors raise.
_LOADING_ERRORS = (
    SafetensorError,
    OSError,
    RuntimeError,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 0..255 to float32 -1..1."""
    return images.float() / 127.5 - 1


def to_pixels(images: Tensor) -> Tensor:
    """float -1..1 to uint8 0..255, rounded, clipped."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


class Tokenizer:
    """Turns images into codes and codes into images.

    Codes depend on the image alone: not on the batch it comes in, nor on what else was coded.
    The network runs in float32.

    Args:
        autoencoder: the trained model.
        name: for people; the fingerprint identifies.
        training: how the weights came about (settings, seed, versions, machine), kept with them.
        config: the autoencoder's config as it was saved, for the fingerprint: a later vqtok may
            spell the same model differently. Default: the autoencoder's own.
    """

    modality = "image"

    def __init__(
        self,
        autoencoder: Autoencoder,
        *,
        name: str,
        training: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.autoencoder: Autoencoder = autoencoder.float().eval().requires_grad_(False)
        channels_last(self.autoencoder)
        self.name = name
        self.training = dict(training or {})
        self.config = dict(config or autoencoder.config)
        self.fingerprint = _fingerprint(self.config, autoencoder)

    def __repr__(self) -> str:
        return (
            f"Tokenizer({self.name!r}, downsample={self.downsample}, "
            f"codebook_sizes={self.codebook_sizes}, fingerprint={self.fingerprint[:12]!r})"
        )

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The size K of each of the Q codebooks."""
        return self.autoencoder.quantizer.codebook_sizes

    @property
    def num_codebooks(self) -> int:
        """Q."""
        return len(self.codebook_sizes)

    @property
    def downsample(self) -> int:
        """Pixels per code, each way."""
        return self.autoencoder.encoder.downsample

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.autoencoder.parameters()).device

    def to(self, device: str | torch.device) -> Tokenizer:
        """Move the model; returns self."""
        self.autoencoder.to(device)
        return self

    @torch.no_grad()
    def encode(self, images: Tensor, num_codebooks: int | None = None) -> Tensor:
        """Code a batch of images.

        Args:
            images: uint8 [B, 3, H, W], any H and W from 1.
            num_codebooks: use only the first q codebooks (default: all Q).

        Returns:
            int64 [B, h, w, q] on the device of the images, h = ceil(H / downsample).

        Raises:
            ValueError: wrong shape or dtype, or ``num_codebooks`` out of range.
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
        quantizer = self.autoencoder.quantizer
        used = check_num_codebooks(num_codebooks, self.num_codebooks)
        rows, columns = -(-height // self.downsample), -(-width // self.downsample)
        codes = images.new_empty((len(images), rows, columns, used), dtype=torch.int64)
        with _strict_float32(self.device):
            for image, out in zip(images, codes, strict=True):
                for tile, inside, place in self._tiles(rows, columns, self._encoder_margin):
                    latents = self.autoencoder.encoder(self._crop(image, tile))
                    result = quantizer(latents[:, inside[0], inside[1]], num_codebooks=used)
                    out[place[0], place[1]] = result.codes[0]
        return codes

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
        with _strict_float32(self.device):
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
    def _encoder_margin(self) -> int:
        return -(-self.autoencoder.encoder.context // self.downsample)

    @property
    def _decoder_margin(self) -> int:
        return -(-self.autoencoder.decoder.context // self.downsample)

    def _pixels(self, codes: slice) -> slice:
        return slice(codes.start * self.downsample, codes.stop * self.downsample)

    def _tiles(
        self, rows: int, columns: int, margin: int
    ) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice], tuple[slice, slice]]]:
        """Cut a grid of codes into tiles: what to compute, what of it to keep, where it goes."""
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

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into a folder, made if needed.

        Tensors that float16 holds without loss are stored in it.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: _narrow(value) for name, value in _state(self.autoencoder).items()}
        config = {
            "format": CONFIG_FORMAT,
            "name": self.name,
            "modality": self.modality,
            "fingerprint": self.fingerprint,
            "autoencoder": self.config,
            "training": self.training,
        }
        _replace(folder / WEIGHTS_NAME, save(tensors))
        _replace(folder / CONFIG_NAME, (json.dumps(config, indent=2) + "\n").encode())

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path) -> Tokenizer:
        """Load a bundled tokenizer by its name, or any by its folder.

        Raises:
            UsageError: there is no such tokenizer.
            DataError: its files are damaged, or of a newer vqtok.
        """
        folder = find_pretrained(name_or_folder)
        config = read_config(folder)
        try:
            with _default_float32():
                autoencoder = build_autoencoder(config["autoencoder"])
            tensors = load_file(folder / WEIGHTS_NAME)
            autoencoder.load_state_dict(
                {name: _widen(value) for name, value in tensors.items()}, strict=True
            )
        except _LOADING_ERRORS as error:
            raise DataError(f"tokenizer {folder} cannot be loaded: {error}") from error
        tokenizer = cls(
            autoencoder,
            name=config["name"],
            training=config.get("training"),
            config=config["autoencoder"],
        )
        if tokenizer.fingerprint != config["fingerprint"]:
            raise DataError(
                f"tokenizer {folder} is damaged: its weights have fingerprint "
                f"{tokenizer.fingerprint[:12]}, its config says {config['fingerprint'][:12]}"
            )
        return tokenizer


def bundled_names() -> list[str]:
    """The names of the tokenizers that come with vqtok."""
    root = resources.files("vqtok") / "pretrained"
    if not root.is_dir():
        return []
    return sorted(entry.name for entry in root.iterdir() if (entry / CONFIG_NAME).is_file())


def find_pretrained(name_or_folder: str | Path) -> Path:
    """The folder of a tokenizer; UsageError if there is none."""
    if str(name_or_folder) in bundled_names():
        return Path(str(resources.files("vqtok") / "pretrained" / str(name_or_folder)))
    folder = Path(name_or_folder)
    if (folder / CONFIG_NAME).is_file():
        return folder
    raise UsageError(
        f"no tokenizer {str(name_or_folder)!r}: neither a bundled one "
        f"({', '.join(bundled_names()) or 'none'}) nor a folder with a {CONFIG_NAME}"
    )


def read_config(folder: Path) -> dict[str, Any]:
    """A tokenizer's ``config.json``; DataError if it is not one that this version reads."""
    path = folder / CONFIG_NAME
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict) or config.get("format") != CONFIG_FORMAT:
        raise DataError(
            f"{path} is not a tokenizer config of format {CONFIG_FORMAT}; "
            f"it may need another version of vqtok"
        )
    for key, kind in _CONFIG_TYPES.items():
        if not isinstance(config.get(key), kind):
            raise DataError(f"{path} lacks {key!r}, or it is not a {kind.__name__}")
    if config["modality"] != Tokenizer.modality:
        raise DataError(f"{path} is for modality {config['modality']!r}, not for images")
    return config


@contextmanager
def _strict_float32(device: torch.device) -> Iterator[None]:
    """Keep a caller's autocast and reduced-precision settings out of the network."""
    precision = torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = convolutions


@contextmanager
def _default_float32() -> Iterator[None]:
    """Build modules in float32, whatever the caller's default is."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)


def _spans(length: int, side: int, margin: int) -> Iterator[tuple[slice, slice, slice]]:
    """Cover 0..length with spans of ``side``: (with margins, the span inside that, the span)."""
    for start in range(0, length, side):
        stop = min(start + side, length)
        low, high = max(0, start - margin), min(length, stop + margin)
        yield slice(low, high), slice(start - low, stop - low), slice(start, stop)


def _state(autoencoder: Autoencoder) -> dict[str, Tensor]:
    return {
        name: value.detach().cpu().contiguous() for name, value in autoencoder.state_dict().items()
    }


def _fingerprint(config: Mapping[str, Any], autoencoder: Autoencoder) -> str:
    """sha256 over everything that decides what codes mean: config, names, shapes, values."""
    parts = {key: config[key] for key in ("encoder", "quantizer", "decoder")}
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    for name, value in sorted(_state(autoencoder).items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _narrow(value: Tensor) -> Tensor:
    if value.dtype == torch.float32 and torch.equal(value.half().float(), value):
        return value.half()
    return value


def _widen(value: Tensor) -> Tensor:
    return value.float() if value.dtype == torch.float16 else value
