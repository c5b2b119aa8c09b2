"""VQGAN, IBQ and Open-MAGVIT2 against packages that hold their own code.

taming-transformers-rom1504, open-magvit2 and openimagetokenizer (of the last the files alone: to
import it takes Lightning); the latter two with their own averages of weights.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_magvit2.taming.modules.diffusionmodules import improved_model
from open_magvit2.taming.modules.ema import LitEma
from open_magvit2.taming.modules.vqvae.lookup_free_quantize import LFQ
from PIL import Image
from taming.modules.diffusionmodules import model as taming_model
from taming.modules.vqvae.quantize import VectorQuantizer2
from torch import Tensor, nn

from vqtok.autoencoders import Autoencoder
from vqtok.importers import FAMILIES, Checkpoint, _family_of
from vqtok.samples import photos
from vqtok.tokenizer import Tokenizer


def file_of(package: str, path: str) -> ModuleType:
    """A module of an installed package, which itself is not imported."""
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.submodule_search_locations is not None
    file = Path(found.submodule_search_locations[0], *path.split("/"))
    spec = importlib.util.spec_from_file_location(f"{package}_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


IBQ_MODEL = file_of("OpenImageTokenizer", "IBQ/modules/diffusionmodules/model.py")
IBQ_QUANTIZE = file_of("OpenImageTokenizer", "IBQ/modules/vqvae/quantize.py")
IBQ_EMA = file_of("OpenImageTokenizer", "IBQ/modules/ema.py")
CONFIGS = file_of("OpenImageTokenizer", "configs.py")

SMALL = {
    "double_z": False,
    "resolution": 64,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 2, 2],
    "num_res_blocks": 2,
}
CODES, DIM = 60, 6


class Published(nn.Module):
    """The parts as the packages' own models, which train with Lightning, put them together.

    Args:
        code: the module with the encoder and the decoder.
        quantize: the quantizer.
        dim: of its latents, where a linear map is on either side; None without.
        settings: ``ddconfig`` of their configs.
    """

    def __init__(
        self, code: ModuleType, quantize: nn.Module, dim: int | None, settings: dict[str, Any]
    ) -> None:
        super().__init__()
        self.encoder = code.Encoder(**settings)
        self.decoder = code.Decoder(**settings)
        self.quantize = quantize
        self.dim = dim
        if dim:
            self.quant_conv = nn.Conv2d(settings["z_channels"], dim, 1)
            self.post_quant_conv = nn.Conv2d(dim, settings["z_channels"], 1)

    def latents(self, images: Tensor) -> Tensor:
        hidden: Tensor = self.encoder(images)
        return self.quant_conv(hidden) if self.dim else hidden

    def codes(self, images: Tensor) -> Tensor:
        found = self.quantize(self.latents(images))[2]
        return found[2] if self.dim else found

    def images(self, codes: Tensor) -> Tensor:
        shape = (*codes.shape, self.dim)
        if self.dim:
            rows = self.quantize.get_codebook_entry(codes.flatten(), shape)
            return self.decoder(self.post_quant_conv(rows))
        bits = int(math.log2(self.quantize.codebook_size))
        return self.decoder(
            self.quantize.get_codebook_entry(codes.flatten(1), (*codes.shape, bits), "")
        )


def vqgan() -> Published:
    quantize = VectorQuantizer2(CODES, DIM, beta=0.25)
    attention = {"attn_resolutions": [16, 32], "z_channels": 10}
    return Published(taming_model, quantize, DIM, {**SMALL, **attention})


def ibq() -> Published:
    quantize = IBQ_QUANTIZE.IndexPropagationQuantize(CODES, DIM)
    attention = {"attn_resolutions": [16], "z_channels": 10}
    return Published(IBQ_MODEL, quantize, DIM, {**SMALL, **attention})


def magvit() -> Published:
    quantize = LFQ(dim=DIM, codebook_size=2**DIM)
    return Published(improved_model, quantize, None, {**SMALL, "z_channels": DIM})


@dataclass
class Kind:
    make: Callable[[], Published]
    family: str
    averages: Any = None


KINDS = {
    "vqgan": Kind(vqgan, "vqgan"),
    "ibq": Kind(ibq, "vqgan", IBQ_EMA.LitEma),
    "magvit": Kind(magvit, "maskgit", LitEma),
}


def photo(height: int, width: int) -> Tensor:
    path = next(path for path in photos() if path.stem == "cat")
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB")))
    return pixels.permute(2, 0, 1)[None, :, 40 : 40 + height, 60 : 60 + width]


def scaled(image: Tensor) -> Tensor:
    return image.float() / 127.5 - 1


def as_saved(model: nn.Module, averages: Any) -> dict[str, Tensor]:
    """What Lightning saves: the last weights, and where there are averages these count."""
    tensors = dict(model.state_dict())
    if averages is None:
        return {**tensors, "loss.discriminator.main.0.weight": torch.zeros(2)}
    kept = averages(model).state_dict()
    last = {name: torch.randn_like(value) for name, value in tensors.items()}
    return {**last, **{f"model_ema.{name}": value for name, value in kept.items()}}


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_codes_and_images_are_those_of_the_package(kind: Kind, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = kind.make().eval()
    for name, value in model.named_parameters():
        if "norm" in name:
            value.add_(0.3 * torch.rand_like(value))
    # Codes from latents around zero: those of an untrained model may all have one nearest code.
    last = model.quant_conv if model.dim else model.encoder.conv_out
    last.bias.sub_(model.latents(scaled(photo(96, 128))).mean((0, 2, 3)))
    if model.dim:
        rows = model.latents(scaled(photo(96, 128))).permute(0, 2, 3, 1).reshape(-1, DIM)
        chosen = rows[torch.linspace(0, len(rows) - 1, CODES).long()]
        model.quantize.embedding.weight.copy_(
            F.normalize(chosen, dim=-1) * rows.norm(dim=-1).mean()
        )
    checkpoint = Checkpoint(as_saved(model, kind.averages))
    assert _family_of(checkpoint, Path()) == kind.family
    tokenizer = Tokenizer(FAMILIES[kind.family].build(checkpoint), name="imported")
    for height, width in ((64, 96), (61, 35)):
        image = photo(height, width)
        codes = tokenizer.encode(image)
        padded = F.pad(image.float(), (0, -width % 4, 0, -height % 4), mode="replicate")
        assert torch.equal(codes.flatten(), model.codes(scaled(padded)).flatten())
        assert codes.unique().numel() > 15
        decoded = tokenizer.autoencoder.decoder(tokenizer.autoencoder.quantizer.embed(codes))
        assert (decoded - model.images(codes[..., 0])).abs().max() < 1e-4
    tokenizer.save_pretrained(tmp_path)
    assert torch.equal(Tokenizer.from_pretrained(tmp_path).encode(image), codes)


def published(code: ModuleType, quantize: nn.Module, config: dict[str, Any]) -> dict[str, Tensor]:
    """Tensors of no memory under the names and with the shapes of the whole model."""
    settings = config["model"]["init_args"]
    dim = settings["embed_dim"] if code is not improved_model else None
    with torch.device("meta"):
        model = Published(code, quantize, dim, settings["ddconfig"])
    averages = IBQ_EMA.LitEma(model).state_dict()
    tensors = {**model.state_dict(), **{f"model_ema.{k}": v for k, v in averages.items()}}
    return {name: torch.ones(()).expand(value.shape) for name, value in tensors.items()}


def learned(model: Autoencoder) -> int:
    return sum(p.numel() for part in (model.encoder, model.decoder) for p in part.parameters())


@pytest.fixture
def _uninitialised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are overwritten anyway: do not draw a hundred million random numbers."""
    for layer in (nn.modules.conv._ConvNd, nn.Linear):
        monkeypatch.setattr(layer, "reset_parameters", lambda _self: None)


@pytest.mark.usefixtures("_uninitialised")
@pytest.mark.parametrize("size", [1024, 8192, 16384, 262144])
def test_published_sizes_of_ibq_fit(size: int) -> None:
    config = CONFIGS.get_model_config_IBQ(f"TencentARC/IBQ-Tokenizer-{size}")
    assert config["model"]["init_args"]["n_embed"] == size
    with torch.device("meta"):
        quantize = IBQ_QUANTIZE.IndexPropagationQuantize(size, 256)
    tensors = published(IBQ_MODEL, quantize, config)
    checkpoint = Checkpoint(tensors)
    assert _family_of(checkpoint, Path()) == "vqgan"
    model = FAMILIES["vqgan"].build(checkpoint)
    assert model.quantizer.codebook_sizes == (size,)
    assert (model.encoder.downsample, model.encoder.dim) == (16, 256)
    own = {k: v for k, v in tensors.items() if not k.startswith(("model_ema.", "quantize."))}
    assert learned(model) == sum(value.numel() for value in own.values())


@pytest.mark.usefixtures("_uninitialised")
@pytest.mark.parametrize(
    ("name", "bits", "downsample"),
    [
        ("Tokenizer-128-resolution", 18, 8),
        ("Tokenizer-256-resolution", 18, 16),
        ("Tokenizer-262144-Pretrain", 18, 16),
        ("Tokenizer-16384-Pretrain", 14, 16),
    ],
)
def test_published_sizes_of_open_magvit2_fit(name: str, bits: int, downsample: int) -> None:
    config = CONFIGS.get_model_config(f"TencentARC/Open-MAGVIT2-{name}")
    tensors = published(improved_model, nn.Identity(), config)
    checkpoint = Checkpoint(tensors)
    assert _family_of(checkpoint, Path()) == "maskgit"
    model = FAMILIES["maskgit"].build(checkpoint)
    assert model.quantizer.codebook_sizes == (2**bits,)
    assert model.encoder.downsample == downsample
    own = {k: v for k, v in tensors.items() if not k.startswith("model_ema.")}
    assert learned(model) == sum(value.numel() for value in own.values())


@pytest.mark.usefixtures("_uninitialised")
@pytest.mark.parametrize("size", [1024, 16384])
def test_published_sizes_of_vqgan_fit(size: int) -> None:
    """vqgan_imagenet_f16_1024 and _16384, by their ``model.yaml``."""
    settings = {
        **SMALL,
        "resolution": 256,
        "z_channels": 256,
        "ch": 128,
        "ch_mult": [1, 1, 2, 2, 4],
        "attn_resolutions": [16],
    }
    with torch.device("meta"):
        model = Published(taming_model, VectorQuantizer2(size, 256, 0.25), 256, settings)
    tensors = {k: torch.ones(()).expand(v.shape) for k, v in model.state_dict().items()}
    built = FAMILIES["vqgan"].build(Checkpoint(tensors))
    assert built.quantizer.codebook_sizes == (size,)
    own = sum(v.numel() for k, v in tensors.items() if not k.startswith("quantize."))
    assert learned(built) == own
