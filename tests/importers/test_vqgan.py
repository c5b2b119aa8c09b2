"""Image tokenizers of the VQGAN family against the packages that they come from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers.models import chameleon as hf_chameleon
from transformers.models import emu3 as hf_emu3
from transformers.models import janus as hf_janus

from vqtok.autoencoders import Autoencoder
from vqtok.errors import DataError, UsageError
from vqtok.importers import FAMILIES, Checkpoint, _family_of, vqgan
from vqtok.importers.weights import Weights
from vqtok.samples import photos
from vqtok.tokenizer import Tokenizer

DIM = 6
CODES = 50


@dataclass
class Rival:
    """A model of another package: what it publishes and what it computes."""

    tensors: dict[str, Tensor]
    latents: Any  # images -> [B, D, h, w]
    codes: Any  # latents -> [B * h * w]
    images: Any = None  # codes [B, h, w] -> images; None without a decoder
    config: dict[str, Any] = field(default_factory=dict)
    family: str = "vqgan"
    model: Any = None

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.tensors, self.config)

    def build(self, checkpoint: Checkpoint) -> Autoencoder:
        return FAMILIES[self.family].build(checkpoint)


def photo(height: int, width: int) -> Tensor:
    path = next(path for path in photos() if path.stem == "cat")
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB")))
    return pixels.permute(2, 0, 1)[None, :, 40 : 40 + height, 60 : 60 + width]


def set_codebook(embedding: torch.nn.Embedding, latents: Tensor) -> None:
    """Real latents as codes: those of an untrained model may all have one nearest code."""
    rows = latents.permute(0, 2, 3, 1).reshape(-1, DIM)
    chosen = rows[torch.linspace(0, len(rows) - 1, CODES).long()]
    embedding.weight.data = chosen * (1 + 0.05 * torch.randn(CODES, 1))


def diffusers_model(seen: Tensor, amused: bool = False) -> Rival:
    """aMUSEd's pipeline feeds its model pixels of 0..1, others theirs -1..1."""

    def given(x: Tensor) -> Tensor:
        return (x + 1) / 2 if amused else x

    model = diffusers.VQModel(
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        block_out_channels=(16, 32, 32),
        layers_per_block=2,
        latent_channels=10,
        num_vq_embeddings=CODES,
        vq_embed_dim=DIM,
        norm_num_groups=4,
        lookup_from_codebook=amused,
    ).eval()
    set_codebook(model.quantize.embedding, model.encode(given(seen)).latents)

    def images(codes: Tensor) -> Tensor:
        if amused:
            shape = (*codes.shape, DIM)
            decoded = model.decode(codes.flatten(), force_not_quantize=True, shape=shape)
            return 2 * decoded.sample - 1
        rows = model.quantize.embedding(codes).permute(0, 3, 1, 2)
        return model.decode(rows).sample

    return Rival(
        dict(model.state_dict()),
        lambda x: model.encode(given(x)).latents,
        lambda latents: model.quantize(latents)[2][2],
        images,
        dict(model.config),
    )


def chameleon(seen: Tensor) -> Rival:
    config = hf_chameleon.ChameleonVQVAEConfig(
        embed_dim=DIM,
        num_embeddings=CODES,
        base_channels=64,
        channel_multiplier=[1, 1, 2],
        num_res_blocks=1,
        latent_channels=12,
        resolution=64,
        attn_resolutions=[16],
    )
    model = hf_chameleon.ChameleonVQVAE(config).eval()
    set_codebook(model.quantize.embedding, model.quant_conv(model.encoder(seen)))
    inside = {f"model.vqmodel.{name}": value for name, value in model.state_dict().items()}
    return Rival(
        {**inside, "lm_head.weight": torch.zeros(3, 3)},
        lambda x: model.quant_conv(model.encoder(x)),
        lambda latents: model.quantize(latents)[2],
    )


def janus(seen: Tensor) -> Rival:
    config = hf_janus.JanusVQVAEConfig(
        embed_dim=DIM,
        num_embeddings=CODES,
        base_channels=32,
        channel_multiplier=[1, 2, 2],
        num_res_blocks=2,
        latent_channels=12,
        num_patches=1,
    )
    model = hf_janus.JanusVQVAE(config).eval()
    set_codebook(model.quantize.embedding, model.quant_conv(model.encoder(seen)))

    def images(codes: Tensor) -> Tensor:
        model.quantize.quant_state_dims = codes.shape[1:]
        return model.decode(codes.flatten(1))

    return Rival(
        dict(model.state_dict()),
        lambda x: model.quant_conv(model.encoder(x)),
        lambda latents: model.quantize(latents)[2],
        images,
        model=model,
    )


def llamagen(seen: Tensor) -> Rival:
    """The same layers under LlamaGen's names, compared by angle as in its own code."""
    rival = janus(seen)
    rules = [
        (r"\.mid\.block_1\.", ".mid.0."),
        (r"\.mid\.attn_1\.", ".mid.1."),
        (r"\.mid\.block_2\.", ".mid.2."),
        (r"\.(down|up)\.(\d+)\.block\.", r".conv_blocks.\2.res."),
        (r"\.(down|up)\.(\d+)\.", r".conv_blocks.\2."),
    ]
    tensors = {}
    for name, value in rival.tensors.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        tensors[name] = value
    rows = F.normalize(tensors["quantize.embedding.weight"], dim=-1)
    rival.tensors = {**tensors, "quantize.codebook_used": torch.zeros(65536)}

    def codes(latents: Tensor) -> Tensor:
        flat = F.normalize(latents.permute(0, 2, 3, 1).reshape(-1, DIM), dim=-1)
        distances = flat.square().sum(1, keepdim=True) + rows.square().sum(1) - 2 * flat @ rows.T
        return distances.argmin(1)

    rival.codes = codes
    return rival


def taming(seen: Tensor) -> Rival:
    """The same layers as taming-transformers numbers them: the decoder's stages backwards."""
    rival = janus(seen)
    last = 2
    tensors = {
        re.sub(r"^decoder\.up\.(\d+)\.", lambda m: f"decoder.up.{last - int(m[1])}.", name): value
        for name, value in rival.tensors.items()
    }
    rows = tensors["quantize.embedding.weight"] / tensors["quantize.embedding.weight"].norm(
        dim=-1, keepdim=True
    )  # so that the decoder of the oracle, which normalises, sees the same
    tensors["quantize.embedding.weight"] = rows
    rival.tensors = {**tensors, "loss.discriminator.main.0.weight": torch.zeros(2)}
    rival.codes = lambda latents: torch.cdist(
        latents.permute(0, 2, 3, 1).reshape(-1, DIM), rows
    ).argmin(1)
    return rival


def ibq(seen: Tensor) -> Rival:
    """taming's layout compared by product; the weights that count are the running averages."""
    rival = taming(seen)
    rows = rival.tensors["quantize.embedding.weight"]
    averages = {"model_ema." + k.replace(".", ""): v for k, v in rival.tensors.items()}
    others = {name: torch.randn_like(value) for name, value in rival.tensors.items()}
    steps = {"model_ema.num_updates": torch.tensor(3), "model_ema.decay": torch.tensor(0.9)}
    rival.tensors = {**others, **averages, **steps}
    rival.codes = lambda latents: (latents.permute(0, 2, 3, 1).reshape(-1, DIM) @ rows.T).argmax(1)
    return rival


SCALES = [1, 2, 3, 4, 6, 8]


def var(seen: Tensor) -> Rival:
    """The layers of taming with packed attention, 3 x 3 projections and codes at many scales."""
    plain = taming(seen)
    model, side = plain.model, SCALES[-1]
    tensors = {}
    for name, value in plain.tensors.items():
        if re.search(r"\.attn[._].*\.[qkv]\.", name):
            continue
        tensors[name] = value
    for name in [name for name in plain.tensors if re.search(r"\.attn[._].*\.q\.", name)]:
        parts = [plain.tensors[re.sub(r"\.q\.", f".{letter}.", name)] for letter in "qkv"]
        tensors[re.sub(r"\.q\.", ".qkv.", name)] = torch.cat(parts)
    for part, out, given in (("quant_conv", DIM, 12), ("post_quant_conv", 12, DIM)):
        tensors[f"{part}.weight"] = torch.randn(out, given, 3, 3) / (3 * given**0.5)
        tensors[f"{part}.bias"] = torch.randn(out) / 10
    for index in range(4):
        phi = f"quantize.quant_resi.qresi_ls.{index}"
        tensors[f"{phi}.weight"] = torch.randn(DIM, DIM, 3, 3) / 10
        tensors[f"{phi}.bias"] = torch.randn(DIM) / 10
    tensors["quantize.ema_vocab_hit_SV"] = torch.zeros(len(SCALES), CODES)

    def conv(x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], padding=1)

    def tiles(x: Tensor) -> Tensor:
        size = 4 * side
        rows = [row.split(size, dim=3) for row in x.split(size, dim=2)]
        return torch.cat([tile for row in rows for tile in row])

    def latents(x: Tensor) -> Tensor:
        return torch.cat([conv(model.encoder(tile), "quant_conv") for tile in tiles(x).split(1)])

    # Of 6 scales, which of 4 convolutions: the nearest of 1/12, 13/36, 23/36, 11/12 to 0, 1/5, ...
    shared = [0, 0, 1, 2, 3, 3]

    def added(cells: Tensor, scale: int) -> Tensor:
        planes = cells.permute(0, 3, 1, 2)
        if SCALES[scale] != side:
            planes = F.interpolate(planes, size=(side, side), mode="bicubic")
        return planes / 2 + conv(planes, f"quantize.quant_resi.qresi_ls.{shared[scale]}") / 2

    rows = tensors["quantize.embedding.weight"]

    def codes(z: Tensor) -> Tensor:
        rest, found = z, []
        for scale, length in enumerate(SCALES):
            cells = F.interpolate(rest, size=(length, length), mode="area").permute(0, 2, 3, 1)
            found.append(torch.cdist(cells, rows).argmin(-1).flatten(1))
            rest = rest - added(rows[found[-1]].reshape(cells.shape), scale)
        return torch.cat(found, dim=1)

    def images(codes: Tensor) -> Tensor:
        h, w = codes.shape[1:3]
        flat, total = codes.flatten(0, 2), torch.zeros(())
        for scale, part in enumerate(flat.split([length**2 for length in SCALES], dim=1)):
            total = total + added(rows[part].unflatten(1, (SCALES[scale],) * 2), scale)
        decoded = torch.cat([model.decoder(conv(one, "post_quant_conv")) for one in total.split(1)])
        lines = [torch.cat(list(line), dim=-1) for line in decoded.split(w)]
        assert len(lines) == h
        return torch.cat(lines, dim=-2)[None]

    seen_rows = latents(seen).permute(0, 2, 3, 1).reshape(-1, DIM)
    rows = seen_rows[torch.linspace(0, len(seen_rows) - 1, CODES).long()]
    rows = rows * (1 + 0.05 * torch.randn(CODES, 1))
    tensors["quantize.embedding.weight"] = rows
    config = {"v_patch_nums": SCALES}
    return Rival(tensors, latents, codes, images, config, family="var")


def emu3(seen: Tensor) -> Rival:
    config = hf_emu3.Emu3VQVAEConfig(
        codebook_size=CODES,
        embed_dim=DIM,
        latent_channels=DIM,
        base_channels=32,
        channel_multiplier=[1, 2, 2],
        num_res_blocks=1,
        attn_resolutions=[2],
        hidden_size=64,
    )
    model = hf_emu3.Emu3VQVAE(config).eval()
    for name, value in model.state_dict().items():
        if name.endswith(("running_mean", "running_var", "norm1.weight", "norm2.bias")):
            value.add_(torch.rand_like(value))

    def latents(x: Tensor) -> Tensor:
        frames = model.encoder(x[:, None].repeat(1, 4, 1, 1, 1))
        return model.quant_conv(frames.transpose(1, 2))[:, :, 0]

    set_codebook(model.quantize.embedding, latents(seen))
    inside = {f"model.vqmodel.{name}": value for name, value in model.state_dict().items()}
    return Rival(
        inside,
        latents,
        lambda z: model.quantize(z[:, None]),
        model.decode,
        family="emu3",
    )


RIVALS = {
    "emu3": emu3,
    "diffusers": diffusers_model,
    "amused": partial(diffusers_model, amused=True),
    "chameleon": chameleon,
    "janus": janus,
    "llamagen": llamagen,
    "taming": taming,
    "ibq": ibq,
    "var": var,
}


@pytest.fixture(scope="module", params=RIVALS)
def rival(request: pytest.FixtureRequest) -> Rival:
    torch.manual_seed(0)
    with torch.no_grad():
        return RIVALS[request.param](photo(96, 128).float() / 127.5 - 1)


@pytest.fixture(scope="module")
def tokenizer(rival: Rival) -> Tokenizer:
    assert _family_of(rival.checkpoint, Path()) == rival.family
    return Tokenizer(rival.build(rival.checkpoint), name="imported")


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(64, 96), (61, 35)])
def test_codes_and_images_are_those_of_the_package(
    rival: Rival, tokenizer: Tokenizer, height: int, width: int
) -> None:
    image = photo(height, width)
    codes = tokenizer.encode(image)

    multiple = (-height % tokenizer.downsample, -width % tokenizer.downsample)
    padded = F.pad(image.float(), (0, multiple[1], 0, multiple[0]), mode="replicate")
    expected = rival.codes(rival.latents(padded / 127.5 - 1))

    down, Q = tokenizer.downsample, tokenizer.num_codebooks
    assert codes.shape[1:] == (-(-height // down), -(-width // down), Q)
    assert (down, Q) == ((4, 1) if rival.family != "var" else (32, 130))
    assert torch.equal(codes.flatten(), expected.flatten())
    assert codes.unique().numel() > CODES / 2  # one code everywhere would show nothing
    if rival.images is None:
        with pytest.raises(ValueError, match="no decoder"):
            tokenizer.decode(codes)
        return
    decoded = tokenizer.autoencoder.decoder(tokenizer.autoencoder.quantizer.embed(codes))
    assert (decoded - rival.images(codes[..., 0] if Q == 1 else codes)).abs().max() < 1e-4
    assert tokenizer.decode(codes, size=(height, width)).shape == image.shape


@torch.no_grad()
def test_an_image_of_one_pixel_is_coded(rival: Rival, tokenizer: Tokenizer) -> None:
    """torch's layer refuses it where a group has one channel."""
    image = photo(1, 1)
    codes = tokenizer.encode(image)
    assert codes.shape == (1, 1, 1, tokenizer.num_codebooks)
    if rival.images is not None:
        assert tokenizer.decode(codes, size=(1, 1)).shape == image.shape


def test_an_imported_tokenizer_is_saved_and_loaded(tokenizer: Tokenizer, tmp_path) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = Tokenizer.from_pretrained(tmp_path)
    assert again.fingerprint == tokenizer.fingerprint
    image = photo(40, 40)
    assert torch.equal(again.encode(image), tokenizer.encode(image))


def test_the_other_rule_for_janus_goes_by_angle() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        rival = janus(photo(96, 128).float() / 127.5 - 1)
        image = photo(64, 96)
        flat = rival.latents(image.float() / 127.5 - 1).permute(0, 2, 3, 1).reshape(-1, DIM)
    rows = rival.tensors["quantize.embedding.weight"]
    by_angle = (F.normalize(flat, dim=-1) @ F.normalize(rows, dim=-1).T).argmax(1)
    model = vqgan.build(Checkpoint(rival.tensors), compare="angle")
    codes = Tokenizer(model, name="angle").encode(image).flatten()
    assert torch.equal(codes, by_angle)
    by_distance = vqgan.build(Checkpoint(rival.tensors))
    assert not torch.equal(Tokenizer(by_distance, name="x").encode(image).flatten(), by_angle)


def test_what_pixels_are_can_be_told() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        rival = diffusers_model(photo(96, 128).float() / 127.5 - 1)
        told = vqgan.build(rival.checkpoint, pixels="unit")
        latents = told.encoder(photo(64, 96).float() / 127.5 - 1)
        expected = rival.latents(photo(64, 96).float() / 255)
    assert (latents - expected.permute(0, 2, 3, 1)).abs().max() < 1e-4
    with pytest.raises(UsageError, match="unit"):
        vqgan.build(rival.checkpoint, pixels="bytes")
    with pytest.raises(UsageError, match="product"):
        vqgan.build(rival.checkpoint, compare="cosine")


def changed(rival: Rival, name: str, value: Tensor | None) -> Checkpoint:
    tensors = dict(rival.tensors)
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    return Checkpoint(tensors, rival.config)


def end_of(rival: Rival, suffix: str) -> str:
    averaged = f"model_ema.{suffix.replace('.', '')}"  # these count where there are any
    if averaged in rival.tensors:
        return averaged
    return next(name for name in rival.tensors if name.endswith(suffix))


def test_the_first_wrong_tensor_is_named(rival: Rival) -> None:
    bias = end_of(rival, "encoder.conv_in.bias")
    with pytest.raises(DataError, match="missing"):
        rival.build(changed(rival, bias, None))
    with pytest.raises(DataError, match=r"encoder.conv_in.bias' has shape \[7\]"):
        rival.build(changed(rival, bias, torch.zeros(7)))
    nan = torch.full_like(rival.tensors[bias], torch.nan)
    with pytest.raises(DataError, match=r"conv_in.bias' holds NaN"):
        rival.build(changed(rival, bias, nan))
    if rival.family == "emu3":  # of which two are made
        time = end_of(rival, "encoder.time_conv.0.conv.conv.weight")
        with pytest.raises(DataError, match=r"time_conv\.0\.conv\.conv\.weight' has shape"):
            rival.build(changed(rival, time, rival.tensors[time][:, :-1]))
    # An unknown weight among averaged ones lacks its average.
    prefix = "" if bias.startswith("model_ema.") else bias.removesuffix("encoder.conv_in.bias")
    with pytest.raises(DataError, match=r"encoder\.?surprise' is (unexpected|missing)"):
        rival.build(changed(rival, f"{prefix}encoder.surprise", torch.zeros(1)))


def test_numbers_with_gaps_are_refused() -> None:
    tensors = {"encoder.down.999999999.block.0.conv1.weight": torch.zeros(1)}
    weights = Weights(tensors, lambda name: name)
    with pytest.raises(DataError, match=r"nothing in the checkpoint is encoder.down.0"):
        weights.count("encoder.down.")


def test_two_names_for_one_tensor_are_refused() -> None:
    with pytest.raises(DataError, match="both"):
        Weights({"a": torch.zeros(1), "b": torch.zeros(1)}, lambda _name: "c")


def test_the_published_size_of_emu3_fits() -> None:
    with torch.device("meta"):
        published = hf_emu3.Emu3VQVAE(hf_emu3.Emu3VQVAEConfig())
    tensors = {name: torch.zeros(v.shape) for name, v in published.state_dict().items()}
    model = FAMILIES["emu3"].build(Checkpoint(tensors))
    assert model.quantizer.codebook_sizes == (32768,)
    assert (model.encoder.downsample, model.encoder.dim) == (8, 4)


@pytest.mark.parametrize("kind", [hf_chameleon.ChameleonVQVAE, hf_janus.JanusVQVAE])
def test_published_sizes_fit(kind: Any) -> None:
    """The defaults of transformers are those of the published models."""
    with torch.device("meta"):
        published = kind(kind.config_class())
    tensors = {name: torch.zeros(v.shape) for name, v in published.state_dict().items()}
    model = vqgan.build(Checkpoint(tensors))
    assert model.quantizer.codebook_sizes == (published.quantize.embedding.weight.shape[0],)
    ours = sum(p.numel() for p in [*model.encoder.parameters(), *model.decoder.parameters()])
    theirs = sum(p.numel() for p in published.parameters())
    theirs -= published.quantize.embedding.weight.numel()
    if kind is hf_chameleon.ChameleonVQVAE:  # a projection for a decoder that it lacks
        theirs -= sum(p.numel() for p in published.post_quant_conv.parameters())
    assert ours == theirs


def test_the_published_size_of_amused_fits() -> None:
    with torch.device("meta"):
        published = diffusers.VQModel(
            down_block_types=("DownEncoderBlock2D",) * 5,
            up_block_types=("UpDecoderBlock2D",) * 5,
            block_out_channels=(128, 256, 256, 512, 768),
            layers_per_block=2,
            latent_channels=64,
            num_vq_embeddings=8192,
            mid_block_add_attention=False,
            lookup_from_codebook=True,
        )
    tensors = {name: torch.ones(()).expand(v.shape) for name, v in published.state_dict().items()}
    model = vqgan.build(Checkpoint(tensors, dict(published.config)))
    assert model.quantizer.codebook_sizes == (8192,)
    assert (model.encoder.downsample, model.encoder.dim) == (16, 64)
    assert model.config["encoder"]["type"] == model.config["decoder"]["type"] == "unit"
    ours = sum(p.numel() for p in [*model.encoder.parameters(), *model.decoder.parameters()])
    assert ours == sum(p.numel() for p in published.parameters()) - 8192 * 64
