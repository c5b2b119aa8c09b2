"""VAR's and MaskGIT's tokenizers, written out: no package for torch on the index holds them.

Names of tensors, operations and their order are those of FoundationVision/VAR (``models/vqvae.py``,
``basic_vae.py``, ``quant.py``) and of huggingface/open-muse (``modeling_maskgit_vqgan.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, width, eps=1e-6)


def conv(given: int, width: int, kernel: int = 3, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(given, width, kernel, padding=kernel // 2, bias=bias)


class Part(nn.Module):
    """A bag of layers under the names of the published code."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


class Block(nn.Module):
    """A residual block; ``lean`` as MaskGIT's, else as VAR's."""

    def __init__(self, given: int, width: int, lean: bool) -> None:
        super().__init__()
        self.lean = lean
        self.norm1 = norm(given)
        self.conv1 = conv(given, width, bias=not lean)
        self.norm2 = norm(width)
        self.conv2 = conv(width, width, bias=not lean)
        self.changes = given != width
        if self.changes:
            self.nin_shortcut = conv(width if lean else given, width, 1, bias=not lean)

    def forward(self, x: Tensor) -> Tensor:
        if self.lean:
            h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
            return h + (self.nin_shortcut(h) if self.changes else x)
        h = self.conv1(F.silu(self.norm1(x), inplace=True))
        h = self.conv2(F.silu(self.norm2(h), inplace=True))
        return (self.nin_shortcut(x) if self.changes else x) + h


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.norm = norm(width)
        self.qkv = conv(width, 3 * width, 1)
        self.proj_out = conv(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        packed = self.qkv(self.norm(x))
        B, _, H, W = packed.shape
        q, k, v = packed.reshape(B, 3, self.width, H * W).unbind(1)
        weights = torch.bmm(q.permute(0, 2, 1).contiguous(), k).mul_(self.width**-0.5)
        weights = F.softmax(weights, dim=2).permute(0, 2, 1).contiguous()
        return x + self.proj_out(torch.bmm(v, weights).view(B, self.width, H, W))


def level(given: int, width: int, blocks: int, lean: bool, attention: bool) -> Part:
    widths = [given, *[width] * blocks]
    made = [Block(a, b, lean) for a, b in pairwise(widths)]
    sight = [Attention(width) for _ in made] if attention else []
    return Part(block=nn.ModuleList(made), **({} if lean else {"attn": nn.ModuleList(sight)}))


def run(part: Part, x: Tensor) -> Tensor:
    sight = getattr(part, "attn", [])
    for index, block in enumerate(part.block):
        x = block(x)
        if len(sight):
            x = sight[index](x)
    return x


def middle(width: int, blocks: int, lean: bool) -> nn.Module:
    if lean:
        return nn.ModuleList(Block(width, width, lean) for _ in range(blocks))
    ends = {f"block_{i}": Block(width, width, lean) for i in (1, 2)}
    return Part(block_1=ends["block_1"], attn_1=Attention(width), block_2=ends["block_2"])


class Encoder(nn.Module):
    def __init__(self, widths: Sequence[int], blocks: int, dim: int, lean: bool) -> None:
        super().__init__()
        self.lean = lean
        self.last = len(widths) - 1
        self.conv_in = conv(3, widths[0], bias=not lean)
        self.down = nn.ModuleList()
        for stage, width in enumerate(widths):
            given = widths[max(stage - 1, 0)]
            part = level(given, width, blocks, lean, stage == self.last and not lean)
            if stage < self.last and not lean:
                part.downsample = Part(conv=nn.Conv2d(width, width, 3, stride=2))
            self.down.append(part)
        self.mid = middle(widths[-1], blocks, lean)
        self.norm_out = norm(widths[-1])
        self.conv_out = conv(widths[-1], dim, 1 if lean else 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for stage, part in enumerate(self.down):
            x = run(part, x)
            if stage < self.last:
                x = (
                    F.avg_pool2d(x, 2)
                    if self.lean
                    else part.downsample.conv(F.pad(x, (0, 1, 0, 1)))
                )
        for layer in self.mid.children():
            x = layer(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Decoder(nn.Module):
    def __init__(self, widths: Sequence[int], blocks: int, dim: int, lean: bool) -> None:
        super().__init__()
        self.lean = lean
        self.conv_in = conv(dim, widths[-1])
        self.mid = middle(widths[-1], blocks, lean)
        last = len(widths) - 1
        self.up = nn.ModuleList()
        for stage, width in enumerate(widths):
            given = widths[min(stage + 1, last)]
            part = level(given, width, blocks + (not lean), lean, stage == last and not lean)
            if stage:
                upsample = conv(width, width)
                if lean:
                    part.upsample_conv = upsample
                else:
                    part.upsample = Part(conv=upsample)
            self.up.append(part)
        self.norm_out = norm(widths[0])
        self.conv_out = conv(widths[0], 3)

    def forward(self, z: Tensor) -> Tensor:
        x = self.conv_in(z)
        for layer in self.mid.children():
            x = layer(x)
        for stage, part in reversed(list(enumerate(self.up))):
            x = run(part, x)
            if stage:
                upsample = part.upsample_conv if self.lean else part.upsample.conv
                x = upsample(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv_out(F.silu(self.norm_out(x)))


def nearest(rows: Tensor, table: Tensor) -> Tensor:
    squares = rows.square().sum(1, keepdim=True) + table.square().sum(1)
    return torch.addmm(squares, rows, table.T, alpha=-2).argmin(1)


class MaskGIT(nn.Module):
    """Pixels of 0..1 to codes [B, h * w] and back."""

    def __init__(self, widths: Sequence[int], blocks: int, dim: int, codes: int) -> None:
        super().__init__()
        self.encoder = Encoder(widths, blocks, dim, lean=True)
        self.decoder = Decoder(widths, blocks, dim, lean=True)
        self.quantize = Part(embedding=nn.Embedding(codes, dim))

    def encode(self, pixels: Tensor) -> Tensor:
        hidden = self.encoder(pixels).permute(0, 2, 3, 1).contiguous()
        table = self.quantize.embedding.weight
        codes = nearest(hidden.flatten(0, 2), table)
        # The published code makes the embeddings, too, by a matrix of ones and zeros.
        ones = torch.zeros(len(codes), len(table)).scatter_(1, codes[:, None], 1)
        torch.matmul(ones, table).view(hidden.shape).permute(0, 3, 1, 2).contiguous()
        return codes.view(len(pixels), -1)

    def decode(self, codes: Tensor) -> Tensor:
        """int64 [B, h, w]."""
        return self.decoder(self.quantize.embedding(codes).permute(0, 3, 1, 2))


class VAR(nn.Module):
    """Pixels of -1..1 to the codes of all scales [B, sum of squares] and back."""

    def __init__(
        self, widths: Sequence[int], blocks: int, dim: int, codes: int, scales: Sequence[int]
    ) -> None:
        super().__init__()
        self.scales = scales
        self.encoder = Encoder(widths, blocks, dim, lean=False)
        self.decoder = Decoder(widths, blocks, dim, lean=False)
        self.quant_conv = conv(dim, dim)
        self.post_quant_conv = conv(dim, dim)
        shared = nn.ModuleList(conv(dim, dim) for _ in range(4))
        self.quantize = Part(embedding=nn.Embedding(codes, dim), quant_resi=Part(qresi_ls=shared))
        self.quantize.register_buffer("ema_vocab_hit_SV", torch.zeros(len(scales), codes))
        ticks = np.linspace(1 / 12, 11 / 12, 4)
        places = [index / (len(scales) - 1) for index in range(len(scales))]
        self.shared = [int(np.argmin(np.abs(ticks - place))) for place in places]

    def added(self, codes: Tensor, index: int) -> Tensor:
        """What the codes [B, s * s] of a scale add to the map."""
        scale, side = self.scales[index], self.scales[-1]
        cells = self.quantize.embedding(codes.view(-1, scale, scale)).permute(0, 3, 1, 2)
        if index < len(self.scales) - 1:
            cells = F.interpolate(cells, size=(side, side), mode="bicubic")
        cells = cells.contiguous()
        phi = self.quantize.quant_resi.qresi_ls[self.shared[index]]
        return cells.mul(0.5) + phi(cells).mul_(0.5)

    def latents(self, pixels: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(pixels))

    def encode(self, pixels: Tensor) -> Tensor:
        rest = self.latents(pixels).clone()
        total, found = torch.zeros_like(rest), []
        for index, scale in enumerate(self.scales):
            cells = F.interpolate(rest, size=(scale, scale), mode="area")
            rows = cells.permute(0, 2, 3, 1).reshape(-1, rest.shape[1])
            found.append(nearest(rows, self.quantize.embedding.weight).view(len(rest), -1))
            step = self.added(found[-1], index)
            total.add_(step)
            rest.sub_(step)
        return torch.cat(found, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        total = torch.zeros(())
        for index, part in enumerate(codes.split([s * s for s in self.scales], dim=1)):
            total = total + self.added(part, index)
        return self.decoder(self.post_quant_conv(total))
