"""The bundled tokenizer for language models of photos, on photos that it was not trained on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vqtok.media import read_image
from vqtok.samples import photos
from vqtok.tokenizer import ImageTokenizer, Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> ImageTokenizer:
    found = Tokenizer.from_pretrained("photo-lm")
    assert isinstance(found, ImageTokenizer)
    return found


def squares() -> torch.Tensor:
    """uint8 [8, 3, 256, 256] from the middle of the bundled photos."""
    found = []
    for path in photos():
        pixels = read_image(path).pixels
        top, left = (pixels.shape[0] - 256) // 2, (pixels.shape[1] - 256) // 2
        found.append(torch.from_numpy(pixels[top : top + 256, left : left + 256].copy()))
    return torch.stack(found).permute(0, 3, 1, 2)


def test_a_square_is_256_tokens_and_looks_like_itself(tokenizer: ImageTokenizer) -> None:
    assert (tokenizer.downsample, tokenizer.codebook_sizes) == (16, (16_384,))
    images = squares()
    codes = tokenizer.encode(images)
    assert codes.shape == (8, 16, 16, 1)
    decoded = tokenizer.decode(codes)
    error = (decoded.double() - images.double()).square().mean((1, 2, 3))
    assert float((10 * (255**2 / error).log10()).mean()) > 21.5
    assert len(codes.unique()) > 0.6 * codes.numel()


def test_no_grid(tokenizer: ImageTokenizer) -> None:
    """Steps between the pixels of neighbouring codes are hardly larger than others."""
    decoded = tokenizer.decode(tokenizer.encode(squares())).double().mean(1)
    for image in (decoded, decoded.transpose(1, 2)):
        steps = image.diff(dim=2).abs().mean((0, 1))
        border = torch.arange(255) % 16 == 15
        assert float(steps[border].mean() / steps[~border].mean()) < 1.5


def test_a_large_photo_is_coded_in_tiles_as_whole(
    tokenizer: ImageTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = squares()[:4].permute(1, 0, 2, 3).reshape(1, 3, 1024, 256)[:, :, :700]
    whole = tokenizer.encode(image)
    monkeypatch.setattr("vqtok.tokenizer.images._TILE", 128)
    assert (tokenizer.encode(image) != whole).double().mean() < 0.01


def test_its_prior_pays(tokenizer: ImageTokenizer) -> None:
    prior = tokenizer.prior
    assert prior is not None
    assert len(prior.to_bytes()) <= 1_000_000
    bits = []
    for codes in tokenizer.encode(squares()[:4]).numpy():
        streams = prior.encode(codes)
        assert (prior.decode(streams, codes.shape[:2]) == codes).all()
        bits.append(8 * len(streams[0]) / codes.size)
    assert np.mean(bits) < math.log2(16_384)
    said = prior.training["bits_per_code"]
    assert said["integer"][0] <= 1.02 * said["float"][0]
    assert said["integer"][0] < said["order0"][0]
