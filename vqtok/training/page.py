"""What an autoencoder does, as pictures: reconstructions, traversals, samples, interpolations."""

from __future__ import annotations

import base64
import html
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from vqtok.autoencoders import Autoencoder
from vqtok.autoencoders.bottlenecks import GaussianBottleneck, SparseBottleneck
from vqtok.files import atomic_write
from vqtok.quantizers import Quantizer

_COLUMNS = 8
_TRAVERSED = 8
_SIDE = 64
_GAP = 4
_ACTIVE = 0.01
"""A latent whose variance over the data exceeds this is an active unit (Burda et al. 2015)."""


@dataclass(frozen=True)
class Page:
    """Pictures by title, and facts.

    Attributes:
        facts: JSON-able: the model, its latents and, with data, its scores.
        pictures: title and RGB image, in order.
        texts: title and lines, in order.
    """

    facts: dict[str, Any]
    pictures: tuple[tuple[str, Image.Image], ...]
    texts: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def write(self, path: Path) -> None:
        """As .html (one file, pictures inside) or .png (pictures below one another)."""
        with atomic_write(path) as file:
            if path.suffix.lower() == ".png":
                self._column().save(file, format="png")
            else:
                file.write(self._html().encode())

    def _column(self) -> Image.Image:
        height = sum(picture.height + 20 for _, picture in self.pictures)
        width = max(picture.width for _, picture in self.pictures)
        column = Image.new("RGB", (width, height), "white")
        pen, top = ImageDraw.Draw(column), 0
        for title, picture in self.pictures:
            pen.text((2, top + 4), title, fill="black")
            column.paste(picture, (0, top + 20))
            top += picture.height + 20
        return column

    def _html(self) -> str:
        rows = "".join(
            f"<tr><th>{html.escape(key)}</th><td>{html.escape(_shown(value))}</td></tr>"
            for key, value in self.facts.items()
        )
        pictures = "".join(
            f"<h2>{title}</h2><img alt='{title}' src='{_embedded(image)}'>"
            for title, image in self.pictures
        )
        texts = "".join(
            f"<h2>{title}</h2><pre>{html.escape(chr(10).join(lines))}</pre>"
            for title, lines in self.texts
        )
        name = html.escape(str(self.facts["name"]))
        style = (
            "body{font:15px sans-serif;margin:2em;max-width:60em}th{text-align:left;padding-right:"
            "1em;vertical-align:top}td{word-break:break-word}img{max-width:100%}"
        )
        return (
            f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{name}</title>"
            f"<style>{style}</style><h1>{name}</h1><table>{rows}</table>{texts}{pictures}</html>\n"
        )


def autoencoder_page(model: Autoencoder, data: Tensor | None = None, *, seed: int = 0) -> Page:
    """Look at a model, and at what it makes of data.

    Args:
        model: an autoencoder of samples of one shape.
        data: [N, ...], as it takes them; without, there are no reconstructions.
        seed: of the samples.
    """
    facts = model_facts(model)
    pictures: list[tuple[str, Image.Image]] = []
    if data is not None:
        facts |= data_facts(model, data)
        few = data[:_COLUMNS]
        rows = torch.stack([few.to(model.device).float(), model.reconstruct(few).float()])
        pictures.append(("Data, and their reconstructions", grid(rows)))
    if model.density is not None:
        drawn = model.sample(2 * _COLUMNS, seed=seed)
        pictures.append(("Samples", grid(drawn.unflatten(0, (2, _COLUMNS)))))  # type: ignore[no-untyped-call]
        title, made = traversal(model, data)
        pictures.append((title, grid(made)))
    if data is not None and len(data) >= 2 * 4:
        lines = model.interpolate(data[:4], data[4:8], _COLUMNS)
        pictures.append(("Interpolations between two reconstructions", grid(lines)))
    return Page(facts, tuple(pictures))


def model_facts(model: Autoencoder) -> dict[str, Any]:
    """What a model is, without looking at data."""
    facts: dict[str, Any] = {
        "kind": "autoencoder",
        "name": model.name,
        "fingerprint": model.fingerprint,
        "parameters": sum(value.numel() for value in model.parameters()),
        "bottleneck": model.bottleneck.config["type"],
        "threshold": model.threshold,
    }
    if isinstance(model.bottleneck, Quantizer):
        facts["codebook_sizes"] = list(model.bottleneck.codebook_sizes)
    if model.density is not None:
        facts["latents"] = list(model.density.shape)
    if isinstance(model.bottleneck, SparseBottleneck):
        facts["dead_latents"] = int(model.bottleneck.dead.sum())
    return facts | {"config": model.config, "provenance": model.provenance}


def data_facts(model: Autoencoder, data: Tensor) -> dict[str, Any]:
    """How the model does on data, and which of its latents it uses for them."""
    scores = model.score_samples(data).double()
    target = model.scaled(data.to(model.device)).float()
    made = model.scaled(model.reconstruct(data)).float()
    variance = (target - target.mean(0)).square().mean().clamp_min(1e-12)
    facts: dict[str, Any] = {
        "samples": len(data),
        "score_mean": float(scores.mean()),
        "unexplained_variance": float((made - target).square().mean() / variance),
    }
    if model.threshold is not None:
        facts["anomalies"] = int((scores < model.threshold).sum())
    code = model.transform(data)
    if isinstance(model.bottleneck, Quantizer):
        books = code.reshape(-1, code.shape[-1]).T
        sizes = model.bottleneck.codebook_sizes
        facts["usage"] = [
            len(book.unique()) / size for book, size in zip(books, sizes, strict=True)
        ]
        return facts
    rows = code.reshape(-1, code.shape[-1])
    facts["active_units"] = int((rows.var(0, correction=0) > _ACTIVE).sum())
    if isinstance(model.bottleneck, SparseBottleneck):
        facts["l0"] = float((rows != 0).sum(1).float().mean())
        facts["unused_latents"] = int((rows == 0).all(0).sum())
    return facts


def traversal(model: Autoencoder, data: Tensor | None) -> tuple[str, Tensor]:
    """A title, and [rows, columns, ...]: what one latent at a time does, from -2.5 to 2.5 standard
    deviations.

    A Gaussian bottleneck's own dimensions (the most used first); else the principal axes of the
    training data's latents.
    """
    density, bottleneck = model.density, model.bottleneck
    assert density is not None
    reach = torch.linspace(-2.5, 2.5, _COLUMNS, device=model.device)
    if isinstance(bottleneck, GaussianBottleneck) and len(density.shape) == 1:
        dims = torch.arange(bottleneck.out_dim)
        if data is not None:
            dims = model.transform(data).var(0, correction=0).argsort(descending=True).cpu()
        directions = torch.eye(bottleneck.out_dim, device=model.device)[dims[:_TRAVERSED]]
        values = reach[None, :, None] * directions[:, None]
        made = model.inverse_transform(values.flatten(0, 1))
        title = f"Traversals of latents {', '.join(str(int(dim)) for dim in dims[:_TRAVERSED])}"
    else:
        directions = density.axes[:_TRAVERSED]
        latents = density.mean + reach[None, :, None] * directions[:, None]
        made = model.decode_latents(latents.reshape(-1, *density.shape))
        title = "Traversals along the principal axes of the latents"
    return title, made.reshape(len(directions), _COLUMNS, *made.shape[1:])


def grid(samples: Tensor) -> Image.Image:
    """Samples [rows, columns, ...] as one picture: images [C, H, W] as they are, others as curves.

    All share one range of values, so that they can be compared.
    """
    values = samples.detach().float().cpu().numpy()
    low, high = float(values.min()), float(values.max())
    values = (values - low) / max(high - low, 1e-12)
    tiles = [[_tile(value) for value in row] for row in values]
    width, height = tiles[0][0].size
    picture = Image.new(
        "RGB", (len(tiles[0]) * (width + _GAP), len(tiles) * (height + _GAP)), "white"
    )
    for row, line in enumerate(tiles):
        for column, tile in enumerate(line):
            picture.paste(tile, (column * (width + _GAP), row * (height + _GAP)))
    return picture


def _tile(value: Any) -> Image.Image:
    """One sample with values in [0, 1]."""
    if value.ndim == 3 and value.shape[0] in (1, 3):
        pixels = (value.transpose(1, 2, 0) * 255).round().astype(np.uint8)
        image = Image.fromarray(pixels.repeat(3, 2) if pixels.shape[2] == 1 else pixels)
        factor = max(1, _SIDE // max(image.size))
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    curves = value.reshape(len(value), -1).T[:4]
    image = Image.new("RGB", (2 * _SIDE, _SIDE), (245, 245, 245))
    pen = ImageDraw.Draw(image)
    for curve, color in zip(curves, ("#1f5fa8", "#c2571a", "#2c8a4b", "#8a3ba0"), strict=False):
        across = np.linspace(2, 2 * _SIDE - 3, len(curve))
        down = _SIDE - 3 - curve * (_SIDE - 6)
        points = [(float(x), float(y)) for x, y in zip(across, down, strict=True)]
        pen.line(points * (2 if len(points) == 1 else 1), fill=color)
    return image


def _embedded(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return json.dumps(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
