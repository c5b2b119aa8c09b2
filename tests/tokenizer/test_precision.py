"""Networks in bfloat16: nearly the same codes and pixels, and only where it was asked for."""

from __future__ import annotations

import pytest
import torch

from vqtok.cli import main
from vqtok.errors import UsageError
from vqtok.media import read_image
from vqtok.samples import photos
from vqtok.tokenizer import ImageTokenizer, Tokenizer


@pytest.fixture
def tokenizer() -> ImageTokenizer:
    return ImageTokenizer.from_pretrained("photo").to(precision="bfloat16")


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    pixels = torch.from_numpy(read_image(photos()[0]).pixels.copy())
    return pixels.permute(2, 0, 1)[None, :, :256, :256]


def psnr(images: torch.Tensor, others: torch.Tensor) -> float:
    return float(10 * torch.log10(255**2 / (images.double() - others.double()).square().mean()))


def test_codes_and_pixels_are_nearly_those_of_float32(tokenizer, photo) -> None:
    exact = ImageTokenizer.from_pretrained("photo")
    codes, expected = tokenizer.encode(photo), exact.encode(photo)
    differ = (codes != expected).double().mean((0, 1, 2))
    assert 0 < differ[0] < 0.05
    assert differ.max() < 0.2
    assert psnr(exact.decode(codes), photo) > psnr(exact.decode(expected), photo) - 0.02
    assert 35 < psnr(tokenizer.decode(codes), exact.decode(codes)) < 99


def test_codes_do_not_depend_on_the_batch_or_the_caller(tokenizer, photo) -> None:
    codes = tokenizer.encode(photo)
    together = tokenizer.encode(torch.cat([photo.flip(3), photo]))
    assert torch.equal(together[1:], codes)
    with torch.autocast("cpu", torch.float16):
        assert torch.equal(tokenizer.encode(photo), codes)
    exact = ImageTokenizer.from_pretrained("photo").encode(photo)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tokenizer.to(precision="float32").encode(photo), exact)


def test_others_are_refused(tokenizer) -> None:
    with pytest.raises(UsageError, match="run in float32 or bfloat16, not in float16"):
        tokenizer.to(precision="float16")
    assert tokenizer.precision == "bfloat16"
    with pytest.raises(UsageError, match="'audio' run in float32, not in bfloat16"):
        Tokenizer.from_pretrained("audio").to(precision="bfloat16")


def test_the_precision_is_part_of_the_plan(tmp_path, capsys) -> None:
    out = str(tmp_path / "tokens")
    source = str(photos()[0])
    assert main(["encode", source, out, "--precision", "bfloat16"]) == 0
    assert main(["encode", source, out, "--precision", "bfloat16"]) == 0
    assert main(["encode", source, out]) == 2
    assert "is of another device or precision" in capsys.readouterr().err
    pixels = str(tmp_path / "pixels")
    assert main(["decode", out, pixels, "--precision", "bfloat16"]) == 0
