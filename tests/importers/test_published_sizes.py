"""Models of published sizes: every name and shape finds its place.

SNAC and DAC from packages, with the configs of their three published models each. VAR and MaskGIT,
which no package for torch holds, by the names and shapes of their published code:
FoundationVision/VAR (``models/basic_vae.py``, ``quant.py``) and huggingface/open-muse
(``modeling_maskgit_vqgan.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from snac import SNAC
from torch import nn
from transformers import DacConfig, DacModel

from vqtok.autoencoders import Autoencoder
from vqtok.importers import FAMILIES, Checkpoint, _family_of

Shapes = dict[str, tuple[int, ...]]


@pytest.fixture(autouse=True)
def uninitialised(monkeypatch) -> None:
    """Weights are overwritten anyway: do not draw a hundred million random numbers."""
    for layer in (nn.modules.conv._ConvNd, nn.Linear, nn.LayerNorm):
        monkeypatch.setattr(layer, "reset_parameters", lambda _self: None)


def build(family: str, shapes: Shapes, config: dict[str, Any] | None = None) -> Autoencoder:
    tensors = {name: torch.ones(()).expand(shape) for name, shape in shapes.items()}
    checkpoint = Checkpoint(tensors, config or {})
    assert _family_of(checkpoint, Path()) == family
    return FAMILIES[family].build(checkpoint)


def parameters(*modules: nn.Module) -> int:
    return sum(value.numel() for module in modules for value in module.parameters())


MUSIC = {
    "encoder_dim": 64,
    "encoder_rates": [2, 3, 8, 8],
    "decoder_dim": 1536,
    "decoder_rates": [8, 8, 3, 2],
    "attn_window_size": 32,
    "vq_strides": [8, 4, 2, 1],
}
SPEECH = {
    "encoder_dim": 48,
    "encoder_rates": [2, 4, 8, 8],
    "decoder_dim": 1024,
    "decoder_rates": [8, 8, 4, 2],
    "attn_window_size": None,
    "vq_strides": [4, 2, 1],
}


@pytest.mark.parametrize(
    ("rate", "config", "millions"),
    [(24_000, SPEECH, 19.8), (32_000, MUSIC, 54.5), (44_100, MUSIC, 54.5)],
)
def test_snac(rate: int, config: dict[str, Any], millions: float) -> None:
    settings = {**config, "sampling_rate": rate, "codebook_size": 4096, "codebook_dim": 8}
    with torch.device("meta"):
        model = SNAC(**settings)
    assert round(parameters(model) / 1e6, 1) == millions  # as its README says
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if rate == 24_000:  # as others read the published file
        assert len(shapes) == 269
        assert shapes["decoder.model.0.parametrizations.weight.original1"] == (768, 1, 7)
        assert shapes["decoder.model.2.block.1.parametrizations.weight.original0"] == (1024, 1, 1)
        assert shapes["decoder.model.7.parametrizations.weight.original1"] == (1, 64, 7)
        out = "quantizer.quantizers.2.out_proj.parametrizations.weight.original1"
        assert shapes[out] == (768, 8, 1)
    built = build("snac", shapes, settings)
    steps = 4 if rate == 24_000 else 32
    strides = model.vq_strides
    assert built.encoder.hop == steps * model.hop_length
    assert built.encoder.sample_rate == rate
    assert built.quantizer.codebook_sizes == (4096,) * sum(steps // s for s in strides)


@pytest.mark.parametrize(
    ("rate", "ratios", "codebooks", "kbps"),
    [
        (16_000, [2, 4, 5, 8], 12, 6),
        (24_000, [2, 4, 5, 8], 32, 24),
        (44_100, [2, 4, 8, 8], 9, 7.75),
    ],
)
def test_dac(rate: int, ratios: list[int], codebooks: int, kbps: float) -> None:
    config = DacConfig(downsampling_ratios=ratios, n_codebooks=codebooks, sampling_rate=rate)
    with torch.device("meta"):
        model = DacModel(config)
    assert parameters(model) / 1e6 == pytest.approx(75.5, abs=1.5)  # 74 to 77 million
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    built = build("dac", shapes, config.to_dict())
    assert built.encoder.sample_rate == rate
    frame_rate = rate / built.encoder.hop
    assert frame_rate * codebooks * 10 / 1000 == pytest.approx(kbps, abs=0.01)
    assert parameters(built.encoder, built.decoder) == parameters(model.encoder, model.decoder)


def conv(name: str, out: int, given: int, kernel: int, bias: bool = True) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (out, given, kernel, kernel)}
    return {**shapes, f"{name}.bias": (out,)} if bias else shapes


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def block(name: str, given: int, out: int, bias: bool) -> Shapes:
    shapes = norm(f"{name}.norm1", given) | conv(f"{name}.conv1", out, given, 3, bias)
    shapes |= norm(f"{name}.norm2", out) | conv(f"{name}.conv2", out, out, 3, bias)
    return shapes if given == out else shapes | conv(f"{name}.nin_shortcut", out, given, 1, bias)


def stages(widths: list[int], part: str) -> Iterator[tuple[int, int, int]]:
    """(level, width before, width) of ``down`` from the finest, of ``up`` from the coarsest."""
    order = list(enumerate(widths))
    before = widths[0]
    if part == "up":
        order, before = order[::-1], widths[-1]
    for level, width in order:
        yield level, before, width
        before = width


def var() -> Shapes:
    """vae_ch160v4096z32.pth: V=4096, Cvae=32, ch=160, share_quant_resi=4."""
    widths, dim, shapes = [160, 160, 320, 320, 640], 32, Shapes()
    for part, side, blocks in (("encoder", "down", 2), ("decoder", "up", 3)):
        for level, before, width in stages(widths, side):
            for index in range(blocks):
                name = f"{part}.{side}.{level}"
                shapes |= block(
                    f"{name}.block.{index}", before if not index else width, width, True
                )
                if level == len(widths) - 1:
                    shapes |= attention(f"{name}.attn.{index}", width)
            resample = "downsample" if side == "down" else "upsample"
            if level != (len(widths) - 1 if side == "down" else 0):
                shapes |= conv(f"{part}.{side}.{level}.{resample}.conv", width, width, 3)
        shapes |= block(f"{part}.mid.block_1", 640, 640, True)
        shapes |= attention(f"{part}.mid.attn_1", 640)
        shapes |= block(f"{part}.mid.block_2", 640, 640, True)
    shapes |= conv("encoder.conv_in", 160, 3, 3) | norm("encoder.norm_out", 640)
    shapes |= conv("encoder.conv_out", dim, 640, 3) | conv("decoder.conv_in", 640, dim, 3)
    shapes |= norm("decoder.norm_out", 160) | conv("decoder.conv_out", 3, 160, 3)
    shapes |= conv("quant_conv", dim, dim, 3) | conv("post_quant_conv", dim, dim, 3)
    for index in range(4):
        shapes |= conv(f"quantize.quant_resi.qresi_ls.{index}", dim, dim, 3)
    usage: Shapes = {"quantize.ema_vocab_hit_SV": (10, 4096)}
    return shapes | usage | {"quantize.embedding.weight": (4096, dim)}


def attention(name: str, width: int) -> Shapes:
    shapes = norm(f"{name}.norm", width) | conv(f"{name}.qkv", 3 * width, width, 1)
    return shapes | conv(f"{name}.proj_out", width, width, 1)


def test_var() -> None:
    shapes = var()
    built = build("var", shapes)
    assert built.quantizer.codebook_sizes == (4096,) * 680
    assert built.encoder.downsample == 256
    counted = sum(torch.Size(shape).numel() for shape in shapes.values()) - 10 * 4096
    assert parameters(built) + buffers(built) == counted


def buffers(model: nn.Module) -> int:
    """Codebooks, which do not learn by gradient here."""
    return sum(v.numel() for n, v in model.named_buffers() if n.endswith("embeddings"))


def maskgit(codebook_size: int) -> Shapes:
    """Google's tokenizers of 256 and 512 pixels as open-muse's converter names their tensors.

    ``filters=128, channel_multipliers=[1, 1, 2, 2, 4], num_res_blocks=2, embedding_dim=256``.
    """
    widths, blocks, dim, shapes = [128, 128, 256, 256, 512], 2, 256, Shapes()
    for part, side in (("encoder", "down"), ("decoder", "up")):
        for level, before, width in stages(widths, side):
            for index in range(blocks):
                name, given = f"{part}.{side}.{level}.block.{index}", width if index else before
                shapes |= block(name, given, width, False)
                if given != width:  # it maps what the block made, not what it was given
                    shapes |= conv(f"{name}.nin_shortcut", width, width, 1, False)
            if side == "up" and level:
                shapes |= conv(f"decoder.up.{level}.upsample_conv", width, width, 3)
        for index in range(blocks):
            shapes |= block(f"{part}.mid.{index}", 512, 512, False)
    shapes |= conv("encoder.conv_in", 128, 3, 3, False) | norm("encoder.norm_out", 512)
    shapes |= conv("encoder.conv_out", dim, 512, 1) | conv("decoder.conv_in", 512, dim, 3)
    shapes |= norm("decoder.norm_out", 128) | conv("decoder.conv_out", 3, 128, 3)
    return shapes | {"quantize.embedding.weight": (codebook_size, dim)}


def test_maskgit() -> None:
    shapes = maskgit(1024)
    counted = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert (len(shapes), counted) == (168, 54_515_587)  # as Google's own code in JAX makes them
    built = build("maskgit", shapes)
    assert built.config["encoder"]["type"] == "unit"  # pixels of 0..1
    assert built.quantizer.codebook_sizes == (1024,)
    assert (built.encoder.downsample, built.encoder.dim) == (16, 256)
    folded = sum(torch.Size(v).numel() for name, v in shapes.items() if "nin_shortcut" in name)
    assert parameters(built) + buffers(built) == counted - folded
