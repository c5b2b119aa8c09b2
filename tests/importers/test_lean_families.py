"""MaskGIT's VQGAN and Open-MAGVIT2 against what their papers' code computes, written out here.

The names and the order of operations are those of huggingface/open-muse and TencentARC/SEED-Voken.
Packages: Open-MAGVIT2's in test_taming_packages.py, MaskGIT's (in JAX) in scripts/check_maskgit.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vqtok.errors import DataError
from vqtok.importers import FAMILIES, Checkpoint
from vqtok.samples import photos
from vqtok.tokenizer import Tokenizer

CODES, DIM, WIDTHS, BLOCKS = 40, 6, [32, 64, 64], 2
LAST = len(WIDTHS) - 1


class Oracle:
    """A model as published: random tensors under its names, and a forward pass over them."""

    def __init__(self, magvit: bool) -> None:
        torch.manual_seed(0)
        self.magvit = magvit
        self.tensors: dict[str, Tensor] = {}
        middle = "mid_block" if magvit else "mid"
        self.down = [f"encoder.{middle}.{i}" for i in range(BLOCKS)]
        self.up = [f"decoder.{middle}.{i}" for i in range(BLOCKS)]
        self.conv("encoder.conv_in", WIDTHS[0], 3, 3, bias=False)
        self.conv("decoder.conv_in", WIDTHS[-1], DIM, 3)
        for stage, width in enumerate(WIDTHS):
            before = WIDTHS[max(stage - 1, 0)]
            above = WIDTHS[min(stage + 1, LAST)]
            for i in range(BLOCKS):
                self.block(f"encoder.down.{stage}.block.{i}", width if i else before, width)
                self.block(f"decoder.up.{stage}.block.{i}", width if i else above, width)
            if magvit and stage < LAST:
                self.conv(f"encoder.down.{stage}.downsample", width, width, 3)
            if stage:
                up = "upsample.conv1" if magvit else "upsample_conv"
                self.conv(f"decoder.up.{stage}.{up}", width * (4 if magvit else 1), width, 3)
            if magvit:
                for name in ("gamma", "beta"):
                    self.tensors[f"decoder.adaptive.{stage}.{name}.weight"] = torch.randn(
                        above, DIM
                    )
                    self.tensors[f"decoder.adaptive.{stage}.{name}.bias"] = torch.randn(above)
        for name in (*self.down, *self.up):
            self.block(name, WIDTHS[-1], WIDTHS[-1])
        self.norm("encoder.norm_out", WIDTHS[-1])
        self.conv("encoder.conv_out", DIM, WIDTHS[-1], 1)
        self.norm("decoder.norm_out", WIDTHS[0])
        self.conv("decoder.conv_out", 3, WIDTHS[0], 3)
        if magvit:
            self.tensors["quantize.mask"] = 2 ** torch.arange(DIM)
            return
        rows = self.latents(self.given(photo(96, 128))).flatten(2)[0].T
        rows = rows[torch.linspace(0, len(rows) - 1, CODES).long()]
        self.rows = rows * (1 + 0.05 * torch.randn(CODES, 1))
        self.tensors["quantize.embedding.weight"] = self.rows

    def conv(self, name: str, out: int, given: int, kernel: int, *, bias: bool = True) -> None:
        scale = kernel * given**0.5
        self.tensors[f"{name}.weight"] = torch.randn(out, given, kernel, kernel) / scale
        if bias:
            self.tensors[f"{name}.bias"] = torch.randn(out) / 10

    def norm(self, name: str, width: int) -> None:
        self.tensors[f"{name}.weight"] = 1 + torch.rand(width)
        self.tensors[f"{name}.bias"] = torch.randn(width) / 10

    def block(self, name: str, given: int, out: int) -> None:
        self.norm(f"{name}.norm1", given)
        self.conv(f"{name}.conv1", out, given, 3, bias=False)
        self.norm(f"{name}.norm2", out)
        self.conv(f"{name}.conv2", out, out, 3, bias=False)
        if given != out:
            self.conv(f"{name}.nin_shortcut", out, given if self.magvit else out, 1, bias=False)

    def run_conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = self.tensors[f"{name}.weight"]
        bias = self.tensors.get(f"{name}.bias")
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, stride=stride)

    def active(self, x: Tensor, name: str) -> Tensor:
        tensors = self.tensors
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        return F.silu(F.group_norm(x, 32, weight, bias, eps=1e-6))

    def run_block(self, x: Tensor, name: str) -> Tensor:
        h = self.run_conv(self.active(x, f"{name}.norm1"), f"{name}.conv1")
        h = self.run_conv(self.active(h, f"{name}.norm2"), f"{name}.conv2")
        if f"{name}.nin_shortcut.weight" in self.tensors:
            x = self.run_conv(x if self.magvit else h, f"{name}.nin_shortcut")
        return h + x

    def given(self, image: Tensor) -> Tensor:
        """uint8 to what the model takes: MaskGIT 0..1, Open-MAGVIT2 -1..1."""
        return image.float() / 127.5 - 1 if self.magvit else image.float() / 255

    def latents(self, x: Tensor) -> Tensor:
        h = self.run_conv(x, "encoder.conv_in")
        for stage in range(len(WIDTHS)):
            for i in range(BLOCKS):
                h = self.run_block(h, f"encoder.down.{stage}.block.{i}")
            if stage < LAST and self.magvit:
                h = self.run_conv(h, f"encoder.down.{stage}.downsample", stride=2)
            elif stage < LAST:
                h = F.avg_pool2d(h, 2)
        for name in self.down:
            h = self.run_block(h, name)
        return self.run_conv(self.active(h, "encoder.norm_out"), "encoder.conv_out")

    def codes(self, latents: Tensor) -> Tensor:
        flat = latents.flatten(2)[0].T
        if self.magvit:
            return ((flat > 0).long() * 2 ** torch.arange(DIM)).sum(1)
        return torch.cdist(flat, self.rows).argmin(1)

    def images(self, codes: Tensor) -> Tensor:
        if self.magvit:
            z = torch.where((codes[..., None] >> torch.arange(DIM)) & 1 == 1, 1.0, -1.0)
        else:
            z = self.rows[codes]
        z = z.permute(0, 3, 1, 2)
        h = self.run_conv(z, "decoder.conv_in")
        for name in self.up:
            h = self.run_block(h, name)
        for stage in reversed(range(len(WIDTHS))):
            if self.magvit:
                told = f"decoder.adaptive.{stage}"
                linear = {
                    name: F.linear(
                        value,
                        self.tensors[f"{told}.{name}.weight"],
                        self.tensors[f"{told}.{name}.bias"],
                    )
                    for name, value in (
                        ("gamma", (z.flatten(2).var(-1) + 1e-6).sqrt()),
                        ("beta", z.flatten(2).mean(-1)),
                    )
                }
                h = F.group_norm(h, 32, eps=1e-6)
                h = h * linear["gamma"][..., None, None] + linear["beta"][..., None, None]
            for i in range(BLOCKS):
                h = self.run_block(h, f"decoder.up.{stage}.block.{i}")
            if stage and self.magvit:
                h = self.run_conv(h, f"decoder.up.{stage}.upsample.conv1")
                # Channels are numbered by place first.
                h = h.unflatten(1, (2, 2, -1)).permute(0, 3, 4, 1, 5, 2).flatten(4).flatten(2, 3)
            elif stage:
                h = F.interpolate(h, scale_factor=2.0, mode="nearest")
                h = self.run_conv(h, f"decoder.up.{stage}.upsample_conv")
        return self.run_conv(self.active(h, "decoder.norm_out"), "decoder.conv_out")


def photo(height: int, width: int) -> Tensor:
    path = next(path for path in photos() if path.stem == "cat")
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB")))
    return pixels.permute(2, 0, 1)[None, :, 40 : 40 + height, 60 : 60 + width]


@torch.no_grad()
@pytest.mark.parametrize("magvit", [False, True])
def test_codes_and_images_are_those_of_the_published_model(magvit: bool, tmp_path) -> None:
    oracle = Oracle(magvit)
    checkpoint = Checkpoint(oracle.tensors)
    recognised = [name for name, family in FAMILIES.items() if family.recognises(checkpoint)]
    assert recognised == ["maskgit"]
    tokenizer = Tokenizer(FAMILIES["maskgit"].build(checkpoint), name="imported")
    for height, width in ((64, 96), (61, 35)):
        image = photo(height, width)
        codes = tokenizer.encode(image)
        padded = F.pad(image.float(), (0, -width % 4, 0, -height % 4), mode="replicate")
        expected = oracle.codes(oracle.latents(oracle.given(padded)))
        assert torch.equal(codes.flatten(), expected)
        assert codes.unique().numel() > 15
        decoded = tokenizer.autoencoder.decoder(tokenizer.autoencoder.quantizer.embed(codes))
        published = oracle.images(codes[..., 0])
        assert (decoded - (published if magvit else 2 * published - 1)).abs().max() < 1e-4
    tokenizer.save_pretrained(tmp_path)
    assert torch.equal(Tokenizer.from_pretrained(tmp_path).encode(image), codes)
    wrong = {**oracle.tensors, "encoder.conv_in.weight": torch.zeros(32, 3, 5, 5)}
    with pytest.raises(DataError, match=r"'encoder\.conv_in\.weight' has shape \[32, 3, 5, 5\]"):
        FAMILIES["maskgit"].build(Checkpoint(wrong))
    wrong = {**oracle.tensors, "encoder.surprise": torch.zeros(1)}
    with pytest.raises(DataError, match=r"'encoder\.surprise' is unexpected"):
        FAMILIES["maskgit"].build(Checkpoint(wrong))
    wrong = {**oracle.tensors, "encoder.down.1.block.0.conv1.weight": torch.zeros(65, 32, 3, 3)}
    name = r"'encoder\.down\.1\.block\.0\.conv1\.weight' has shape \[65, 32, 3, 3\]"
    with pytest.raises(DataError, match=name + ".*65 is no multiple"):
        FAMILIES["maskgit"].build(Checkpoint(wrong))
