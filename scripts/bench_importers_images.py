"""Image models that bench_importers.py compares with: published sizes, random weights."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_importers_networks
import torch.nn.functional as F
from bench_importers_networks import VAR, MaskGIT
from bench_importers_rivals import Rival, fill, photo
from torch import Tensor, nn


def squared(codes: Tensor) -> Tensor:
    """[B, places, 1] to [B, h, w] of a square image."""
    edge = math.isqrt(codes.shape[1])
    return codes.reshape(len(codes), edge, edge)


def rows_of(latents: Tensor) -> Tensor:
    return latents.permute(0, 2, 3, 1).flatten(0, 2)


def amused(small: bool, side: int) -> Rival:
    """The tokenizer of aMUSEd in diffusers, which sees pixels of 0..1."""
    import diffusers

    widths = (32, 64) if small else (128, 256, 256, 512, 768)
    model = diffusers.VQModel(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=2,
        latent_channels=64,
        num_vq_embeddings=256 if small else 8192,
        mid_block_add_attention=False,
        lookup_from_codebook=True,
    ).eval()
    x = photo(side)

    def latents(x: Tensor) -> Tensor:
        return model.encode((x + 1) / 2).latents

    def decode(codes: Tensor) -> Tensor:
        grid = squared(codes)
        shape = (*grid.shape, 64)
        return 2 * model.decode(codes.flatten(), force_not_quantize=True, shape=shape).sample - 1

    return Rival(
        "vqgan",
        model,
        lambda x: model.quantize(latents(x))[2][2].reshape(len(x), -1, 1),
        decode,
        x,
        dict(model.config),
        lambda: fill(model.quantize.embedding.weight, rows_of(latents(x))),
        (type(model.quantize), "forward"),
    )


class Taming(nn.Module):
    """Encoder, quantizer and decoder as taming's models put them together, without Lightning."""

    def __init__(
        self, parts: Any, quantize: nn.Module, dim: int | None, settings: dict[str, Any]
    ) -> None:
        super().__init__()
        self.encoder = parts.Encoder(**settings)
        self.decoder = parts.Decoder(**settings)
        self.quantize = quantize
        if dim:
            self.quant_conv = nn.Conv2d(settings["z_channels"], dim, 1)
            self.post_quant_conv = nn.Conv2d(dim, settings["z_channels"], 1)

    def latents(self, x: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(x))


def settings(small: bool, blocks: int, **others: Any) -> dict[str, Any]:
    """``ddconfig`` of f16 models."""
    return {
        "double_z": False,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32 if small else 128,
        "ch_mult": [1, 2] if small else [1, 1, 2, 2, 4],
        "num_res_blocks": 1 if small else blocks,
        **others,
    }


def taming_rival(model: Taming, side: int) -> Rival:
    x = photo(side)

    def decode(codes: Tensor) -> Tensor:
        shape = (*squared(codes).shape, model.quant_conv.out_channels)
        rows = model.quantize.get_codebook_entry(codes.flatten(), shape)
        return model.decoder(model.post_quant_conv(rows))

    return Rival(
        "vqgan",
        model.eval(),
        lambda x: model.quantize(model.latents(x))[2][2].reshape(len(x), -1, 1),
        decode,
        x,
        {},
        lambda: fill(model.quantize.embedding.weight, rows_of(model.latents(x))),
        (type(model.quantize), "forward"),
    )


def vqgan(small: bool, side: int) -> Rival:
    """vqgan_imagenet_f16_16384, in taming-transformers-rom1504."""
    from taming.modules.diffusionmodules import model as parts
    from taming.modules.vqvae.quantize import VectorQuantizer2

    quantize = VectorQuantizer2(256 if small else 16384, 256, beta=0.25)
    sizes = settings(small, 2, z_channels=256, attn_resolutions=[16])
    return taming_rival(Taming(parts, quantize, 256, sizes), side)


def ibq(small: bool, side: int) -> Rival:
    """IBQ with 16,384 codes, in openimagetokenizer, of which two files are read."""

    def file_of(path: str) -> Any:
        found = importlib.util.find_spec("OpenImageTokenizer")
        if found is None or found.submodule_search_locations is None:
            raise ModuleNotFoundError("pip install --no-deps openimagetokenizer")
        file = Path(found.submodule_search_locations[0], "IBQ", "modules", path)
        spec = importlib.util.spec_from_file_location(f"ibq_{file.stem}", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    quantize = file_of("vqvae/quantize.py").IndexPropagationQuantize(256 if small else 16384, 256)
    sizes = settings(small, 4, z_channels=256, attn_resolutions=[16], dropout=0.0)
    model = Taming(file_of("diffusionmodules/model.py"), quantize, 256, sizes)
    rival = taming_rival(model, side)

    def fill_directions() -> None:  # of one length: the longest would win every product
        rows = F.normalize(rows_of(model.latents(rival.inputs)), dim=-1)
        fill(quantize.embedding.weight, rows)
        quantize.embedding.weight.copy_(F.normalize(quantize.embedding.weight, dim=-1))

    rival.fill = fill_directions
    rival.options = {"compare": "product"}
    return rival


def magvit(small: bool, side: int) -> Rival:
    """Open-MAGVIT2, 16x, 18 bits, in open-magvit2."""
    from open_magvit2.taming.modules.diffusionmodules import improved_model
    from open_magvit2.taming.modules.vqvae.lookup_free_quantize import LFQ

    bits = 8 if small else 18
    quantize = LFQ(dim=bits, codebook_size=2**bits)
    model = Taming(improved_model, quantize, None, settings(small, 4, z_channels=bits)).eval()
    x = photo(side)

    def decode(codes: Tensor) -> Tensor:
        shape = (*squared(codes).shape, bits)
        return model.decoder(quantize.get_codebook_entry(codes[..., 0], shape, ""))

    def centre() -> None:  # else signs hardly change
        model.encoder.conv_out.bias.sub_(model.encoder(x).mean((0, 2, 3)))

    return Rival(
        "maskgit",
        model,
        lambda x: quantize(model.encoder(x))[2].reshape(len(x), -1, 1),
        decode,
        x,
        {},
        centre,
        (LFQ, "forward"),
    )


def maskgit(small: bool, side: int) -> Rival:
    """Google's tokenizer, which sees pixels of 0..1."""
    widths = (32, 64) if small else (128, 128, 256, 256, 512)
    model = MaskGIT(widths, 2, 256, 128 if small else 1024).eval()
    x = photo(side)
    return Rival(
        "maskgit",
        model,
        lambda x: model.encode((x + 1) / 2)[..., None],
        lambda codes: 2 * model.decode(squared(codes)) - 1,
        x,
        {},
        lambda: fill(model.quantize.embedding.weight, rows_of(model.encoder((x + 1) / 2))),
        (bench_importers_networks, "nearest"),
    )


def var(small: bool, side: int) -> Rival:
    """vae_ch160v4096z32, which sees 256 x 256 pixels, whatever the others see."""
    widths = (32, 64) if small else (160, 160, 320, 320, 640)
    scales = (1, 2, 4, 8) if small else (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    model = VAR(widths, 2, 32, 256 if small else 4096, scales).eval()
    x = photo(scales[-1] * 2 ** (len(widths) - 1))
    return Rival(
        "var",
        model,
        lambda x: model.encode(x)[:, None],
        lambda codes: model.decode(codes[:, 0]),
        x,
        {"v_patch_nums": scales},
        lambda: fill(model.quantize.embedding.weight, rows_of(model.latents(x))),
        (bench_importers_networks, "nearest"),
    )


def janus(small: bool, side: int) -> Rival:
    from transformers.models.janus import JanusVQVAEConfig
    from transformers.models.janus.modeling_janus import JanusVQVAE

    sizes: dict[str, Any] = {
        "base_channels": 32,
        "channel_multiplier": [1, 2],
        "num_embeddings": 256,
    }
    model = JanusVQVAE(JanusVQVAEConfig(**(sizes if small else {}))).eval()
    x = photo(side)

    def decode(codes: Tensor) -> Tensor:
        model.quantize.quant_state_dims = squared(codes).shape[1:]
        return model.decode(codes[..., 0])

    return Rival(
        "vqgan",
        model,
        lambda x: model.encode(x).image_tokens.reshape(len(x), -1, 1),
        decode,
        x,
        {},
        lambda: fill(model.quantize.embedding.weight, rows_of(model.quant_conv(model.encoder(x)))),
        (type(model.quantize), "forward"),
    )


def llamagen(small: bool, side: int) -> Rival:
    """vq_ds16: the layers of Janus under LlamaGen's names, and its lookup by angle, written out."""
    rival = janus(small, side)
    model = rival.model
    rules = [
        (r"\.mid\.block_1\.", ".mid.0."),
        (r"\.mid\.attn_1\.", ".mid.1."),
        (r"\.mid\.block_2\.", ".mid.2."),
        (r"\.(down|up)\.(\d+)\.block\.", r".conv_blocks.\2.res."),
        (r"\.(down|up)\.(\d+)\.", r".conv_blocks.\2."),
    ]

    def renamed(name: str) -> str:
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        return name

    def encode(x: Tensor) -> Tensor:
        rows = F.normalize(rows_of(model.quant_conv(model.encoder(x))), dim=-1)
        table = F.normalize(model.quantize.embedding.weight, dim=-1)
        return bench_importers_networks.nearest(rows, table).reshape(len(x), -1, 1)

    rival.encode, rival.rename = encode, renamed
    rival.lookup = (bench_importers_networks, "nearest")
    return rival


def chameleon(small: bool, side: int) -> Rival:
    """The encoder alone: transformers has no decoder."""
    from transformers.models.chameleon import ChameleonVQVAEConfig
    from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE

    sizes: dict[str, Any] = {
        "base_channels": 32,
        "channel_multiplier": [1, 2],
        "num_embeddings": 256,
    }
    model = ChameleonVQVAE(ChameleonVQVAEConfig(**(sizes if small else {}))).eval()
    x = photo(side)
    return Rival(
        "vqgan",
        model,
        lambda x: model.encode(x).image_tokens.reshape(len(x), -1, 1),
        None,
        x,
        {},
        lambda: fill(model.quantize.embedding.weight, rows_of(model.quant_conv(model.encoder(x)))),
        (type(model.quantize), "forward"),
    )


def emu3(small: bool, side: int) -> Rival:
    """Of half the side: the package computes four frames of video for an image."""
    from transformers import Emu3VQVAE, Emu3VQVAEConfig

    sizes: dict[str, Any] = {"base_channels": 32, "hidden_size": 128, "codebook_size": 256}
    model = Emu3VQVAE(Emu3VQVAEConfig(**(sizes if small else {}))).eval()
    x = photo(side // 2)

    def latents(x: Tensor) -> Tensor:
        frames = model.encoder(x[:, None].repeat(1, 4, 1, 1, 1))
        return model.quant_conv(frames.transpose(1, 2)).transpose(1, 2)

    def fill_codebook() -> None:
        fill(model.quantize.embedding.weight, latents(x).permute(0, 1, 3, 4, 2).flatten(0, 3))

    return Rival(
        "emu3",
        model,
        lambda x: model.quantize(latents(x)).reshape(len(x), -1, 1),
        lambda codes: model.decode(squared(codes)),
        x,
        model.config.to_dict(),
        fill_codebook,
        (type(model.quantize), "forward"),
    )


IMAGES: dict[str, Callable[[bool, int], Rival]] = {
    "vqgan": vqgan,
    "amused": amused,
    "chameleon": chameleon,
    "janus": janus,
    "llamagen": llamagen,
    "ibq": ibq,
    "maskgit": maskgit,
    "magvit": magvit,
    "var": var,
    "emu3": emu3,
}
