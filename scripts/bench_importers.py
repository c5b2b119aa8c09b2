"""Imported tokenizers beside the packages that they come from: codes, outputs, speed, memory.

Models of published sizes with random weights, whose codebooks are filled with latents of a real
photo or sound, in both packages on the same input. For each:

- how many codes differ between the two in the same settings, and how far apart decoding is;
- how many codes of each change with the batch (1 or 4 inputs) and with the threads (1 or all), and
  how near the second nearest code is (share of the distance to the nearest) where any differ;
- encoding and decoding, ours and theirs in turn: the median ratio of times (above 1: ours is
  faster);
- the peak memory of a process of its own that loads the model, encodes and decodes.

    python scripts/bench_importers.py                       # minutes; --small for a try in seconds
    python scripts/bench_importers.py --families mimi snac --threads 1 --json out.json
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from vqtok.autoencoders import Autoencoder
from vqtok.importers import FAMILIES, Checkpoint
from vqtok.quantizers import (
    FixedQuantizer,
    MultiRateQuantizer,
    ProjectedQuantizer,
    Quantizer,
    VectorQuantizer,
)
from vqtok.samples import photos, sounds
from vqtok.tokenizer import Tokenizer


@dataclass
class Rival:
    """A model of another package.

    ``encode``: [B, ...] inputs to codes [B, places, Q]; ``decode``: such codes to outputs;
    ``inputs``: a batch of one; ``config``: as published.
    """

    family: str
    model: nn.Module
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    inputs: Tensor
    config: dict[str, Any]


def photo(side: int) -> Tensor:
    """[1, 3, side, side], -1..1."""
    path = next(path for path in photos() if path.stem == "cat")
    image = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1


def sound(samples: int) -> Tensor:
    """[1, samples], full scale 1."""
    path = next(path for path in sounds() if "speech" in path.stem)
    wave, _ = soundfile.read(path, dtype="float32", frames=samples + 8000)
    wave = np.resize(wave[8000:], samples)
    return torch.from_numpy(wave)[None]


def fill(table: Tensor, rows: Tensor) -> None:
    """Codes around latents [N, D], so far that every level leaves something to the next."""
    chosen = rows[torch.randint(len(rows), (len(table),))]
    table.copy_(chosen + 0.5 * rows.std() * torch.randn_like(chosen))


def diffusers_rival(small: bool, side: int) -> Rival:
    """The tokenizer of aMUSEd: MaskGIT's sizes in diffusers."""
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
    fill(model.quantize.embedding.weight, model.encode(x).latents.permute(0, 2, 3, 1).flatten(0, 2))

    def decode(codes: Tensor) -> Tensor:
        edge = math.isqrt(codes.shape[1])
        shape = (len(codes), edge, edge, 64)
        return model.decode(codes.flatten(), force_not_quantize=True, shape=shape).sample

    def encode(x: Tensor) -> Tensor:
        return model.quantize(model.encode(x).latents)[2][2].reshape(len(x), -1, 1)

    return Rival("vqgan", model, encode, decode, x, dict(model.config))


def emu3_rival(small: bool, side: int) -> Rival:
    from transformers import Emu3VQVAE, Emu3VQVAEConfig

    sizes: dict[str, Any] = {}
    if small:
        sizes = {"base_channels": 32, "hidden_size": 128, "codebook_size": 256}
    model = Emu3VQVAE(Emu3VQVAEConfig(**sizes)).eval()
    x = photo(side)

    def latents(x: Tensor) -> Tensor:
        frames = model.encoder(x[:, None].repeat(1, 4, 1, 1, 1))
        return model.quant_conv(frames.transpose(1, 2)).transpose(1, 2)

    fill(model.quantize.embedding.weight, latents(x).permute(0, 1, 3, 4, 2).flatten(0, 3))

    def decode(codes: Tensor) -> Tensor:
        edge = math.isqrt(codes.shape[1])
        return model.decode(codes.reshape(len(codes), edge, edge))

    def encode(x: Tensor) -> Tensor:
        return model.quantize(latents(x)).reshape(len(x), -1, 1)

    return Rival("emu3", model, encode, decode, x, model.config.to_dict())


def encodec_rival(small: bool, seconds: float) -> Rival:
    from transformers import EncodecConfig, EncodecModel

    sizes: dict[str, Any] = {"num_filters": 8, "hidden_size": 32, "codebook_dim": 32}
    config = EncodecConfig(**(sizes if small else {}), target_bandwidths=[6.0])
    model = EncodecModel(config).eval()
    x = sound(int(seconds * 24_000))
    rest = model.encoder(x[:, None])
    for layer in model.quantizer.layers:
        fill(layer.codebook.embed, rest[0].T)
        rest = rest - layer.decode(layer.encode(rest))
    return Rival(
        "encodec",
        model,
        lambda x: model.encode(x[:, None], bandwidth=6.0).audio_codes[0].transpose(1, 2),
        lambda codes: model.decode(codes.transpose(1, 2)[None], [None]).audio_values[:, 0],
        x,
        config.to_dict(),
    )


def dac_rival(small: bool, seconds: float) -> Rival:
    from transformers import DacConfig, DacModel

    sizes: dict[str, Any] = {"encoder_hidden_size": 16, "decoder_hidden_size": 128}
    model = DacModel(DacConfig(**(sizes if small else {}))).eval()
    x = sound(int(seconds * 16_000) // 512 * 512)
    rest = model.encoder(x[:, None])
    for layer in model.quantizer.quantizers:
        fill(layer.codebook.weight, layer.in_proj(rest)[0].T)
        rest = rest - layer(rest)[0]
    return Rival(
        "dac",
        model,
        lambda x: model.encode(x[:, None]).audio_codes.transpose(1, 2),
        lambda codes: model.decode(audio_codes=codes.transpose(1, 2)).audio_values,
        x,
        model.config.to_dict(),
    )


def mimi_rival(small: bool, seconds: float) -> Rival:
    from transformers import MimiConfig, MimiModel

    sizes: dict[str, Any] = {"num_filters": 8, "num_hidden_layers": 2, "num_quantizers": 8}
    model = MimiModel(MimiConfig(**(sizes if small else {}))).eval()
    x = sound(int(seconds * 24_000))
    latents = model.encoder(x[:, None]).latents
    for half in (
        model.quantizer.semantic_residual_vector_quantizer,
        model.quantizer.acoustic_residual_vector_quantizer,
    ):
        rest = half.input_proj(latents)
        for layer in half.layers:
            fill(layer.codebook.embed_sum, rest[0].T)
            rest = rest - layer.decode(layer.encode(rest))
    return Rival(
        "mimi",
        model,
        lambda x: model.encode(x[:, None]).audio_codes.transpose(1, 2),
        lambda codes: model.decode(codes.transpose(1, 2)).audio_values[:, 0],
        x,
        model.config.to_dict(),
    )


def snac_rival(small: bool, seconds: float) -> Rival:
    """The 24 kHz model; its noise off, as ours is."""
    import snac

    strides = [4, 2, 1]
    config: dict[str, Any] = {
        "sampling_rate": 24_000,
        "encoder_dim": 16 if small else 48,
        "encoder_rates": [2, 4, 8, 8],
        "decoder_dim": 128 if small else 1024,
        "decoder_rates": [8, 8, 4, 2],
        "attn_window_size": None,
        "vq_strides": strides,
    }
    model = snac.SNAC(**config).eval()
    for module in model.modules():
        if type(module).__name__ == "NoiseBlock":
            module.linear.parametrizations.weight.original0.zero_()
    x = sound(int(seconds * 24_000) // 2048 * 2048)
    rest = model.encoder(x[:, None])
    for layer in model.quantizer.quantizers:
        mean = F.avg_pool1d(rest, layer.stride, layer.stride)
        fill(layer.codebook.weight, layer.in_proj(mean)[0].T)
        rest = rest - layer(rest)[0]

    def encode(x: Tensor) -> Tensor:
        levels = model.encode(x[:, None])
        frames = [
            level.reshape(len(x), -1, 4 // s) for level, s in zip(levels, strides, strict=True)
        ]
        return torch.cat(frames, dim=-1)

    def decode(codes: Tensor) -> Tensor:
        levels = codes.split([4 // s for s in strides], dim=-1)
        return model.decode([level.flatten(1) for level in levels])[:, 0]

    return Rival("snac", model, encode, decode, x, config)


RIVALS: dict[str, Callable[[bool, Any], Rival]] = {
    "vqgan": diffusers_rival,
    "emu3": emu3_rival,
    "encodec": encodec_rival,
    "dac": dac_rival,
    "mimi": mimi_rival,
    "snac": snac_rival,
}
IMAGES = ("vqgan", "emu3")


def make(name: str, args: argparse.Namespace) -> Rival:
    torch.manual_seed(0)
    return RIVALS[name](args.small, args.side if name in IMAGES else args.seconds)


def imported(rival: Rival) -> Autoencoder:
    checkpoint = Checkpoint(dict(rival.model.state_dict()), rival.config)
    model = FAMILIES[rival.family].build(checkpoint)
    return Tokenizer(model, name=rival.family).autoencoder  # its weights laid out as tokenizers do


def ours_of(
    model: Autoencoder, rival: Rival
) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """Our encode and decode, of the same shapes as theirs."""
    used = rival.encode(rival.inputs).shape[-1]
    grid = len(rival.inputs.shape) == 4

    def encode(x: Tensor) -> Tensor:
        if grid:
            x = x.contiguous(memory_format=torch.channels_last)
        codes = model.quantizer(model.encoder(x), num_codebooks=used).codes
        return codes.flatten(1, 2) if grid else codes

    def decode(codes: Tensor) -> Tensor:
        if grid:
            edge = math.isqrt(codes.shape[1])
            codes = codes.unflatten(1, (edge, edge))
        output: Tensor = model.decoder(model.quantizer.embed(codes))
        return output

    return encode, decode


def margins(quantizer: Quantizer, latents: Tensor) -> Tensor:
    """(second - first) / first nearest distance in the first codebook, float64 [places]."""
    while not isinstance(quantizer, (VectorQuantizer, FixedQuantizer)):
        if isinstance(quantizer, ProjectedQuantizer):
            latents, quantizer = quantizer._project_in(latents), quantizer.layer
        elif isinstance(quantizer, MultiRateQuantizer):
            latents = latents.unflatten(-1, (quantizer.frame, -1)).mean(-2)
            quantizer = quantizer.layers[0]
        else:
            quantizer = quantizer.layers[0]
    rows, table = latents.flatten(0, -2).double(), quantizer.table().double()
    if getattr(quantizer, "compare", "") == "angle":
        rows, table = F.normalize(rows, dim=-1), F.normalize(table, dim=-1)
    nearest = torch.cdist(rows, table).topk(2, largest=False).values
    return (nearest[:, 1] - nearest[:, 0]) / nearest[:, 0].clamp_min(1e-12)


def differing(codes: Tensor, others: Tensor) -> str:
    return f"{int((codes != others).sum()):,} of {codes.numel():,}"


def stability(encode: Callable[[Tensor], Tensor], x: Tensor, threads: int) -> dict[str, str]:
    """How many codes of the first input change with what should not matter."""
    alone = encode(x)
    batch = torch.cat([x, x.flip(-1), 0.5 * x, -x])
    found = {"batch of 4": differing(encode(batch)[:1], alone)}
    torch.set_num_threads(1 if threads > 1 else 2)
    found["other threads"] = differing(encode(x), alone)
    torch.set_num_threads(threads)
    return found


def paired(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> dict[str, Any]:
    """Times in turn; the ratio of each pair, of which the median.

    In one thread it is processor time, which other work on the machine disturbs less.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: tuple[list[float], list[float]] = ([], [])
    for index in range(rounds + 1):
        order = (0, 1) if index % 2 else (1, 0)
        for side in order:
            start = clock()
            (ours, theirs)[side]()
            if index:  # the first round warms up
                times[side].append(clock() - start)
    ratios = [b / a for a, b in zip(*times, strict=True)]
    return {
        "ours_s": statistics.median(times[0]),
        "theirs_s": statistics.median(times[1]),
        "ratio": statistics.median(ratios),
    }


def peak(name: str, side: str, args: argparse.Namespace) -> int:
    """MB of a process that does one side alone, less what building both of it takes."""
    command = [sys.executable, __file__, "--peak", name, side, "--threads", str(args.threads)]
    command += ["--side", str(args.side), "--seconds", str(args.seconds)]
    command += ["--small"] if args.small else []
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def work_alone(name: str, side: str, args: argparse.Namespace) -> None:
    """Print the rise of the peak memory, in MB, while one side encodes and decodes."""
    rival = make(name, args)
    encode, decode = rival.encode, rival.decode
    if side == "ours":
        encode, decode = ours_of(imported(rival), rival)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    inputs = torch.cat([rival.inputs] * 4)  # more than what building took
    decode(encode(inputs))
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)


def compare(name: str, args: argparse.Namespace) -> dict[str, Any]:
    rival = make(name, args)
    model = imported(rival)
    encode, decode = ours_of(model, rival)
    x = rival.inputs
    theirs, mine = rival.encode(x), encode(x)
    gap = margins(model.quantizer, model.encoder(x))
    sound_or_image = decode(theirs)
    published = rival.decode(theirs)
    length = min(sound_or_image.shape[-1], published.shape[-1])
    facts: dict[str, Any] = {
        "family": name,
        "parameters": sum(p.numel() for p in rival.model.parameters()),
        "codes that differ": differing(mine, theirs),
        "largest difference of decoding": float(
            (sound_or_image[..., :length] - published[..., :length]).abs().max()
        ),
        "margin to the second code": {
            "smallest": float(gap.min()),
            "median": float(gap.median()),
        },
        "theirs change with": stability(rival.encode, x, args.threads),
        "ours change with": stability(encode, x, args.threads),
        "encode": paired(lambda: encode(x), lambda: rival.encode(x), args.rounds),
        "decode": paired(lambda: decode(theirs), lambda: rival.decode(theirs), args.rounds),
    }
    if not args.no_memory:
        facts["memory_mb"] = {side: peak(name, side, args) for side in ("ours", "theirs")}
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", nargs="+", choices=RIVALS, default=list(RIVALS))
    parser.add_argument("--side", type=int, default=256, help="pixels of the photo, each way")
    parser.add_argument("--seconds", type=float, default=4.0, help="of sound")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--small", action="store_true", help="small models, to try the script")
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    parser.add_argument("--json", type=Path, help="write the results there, too")
    parser.add_argument("--peak", nargs=2, metavar=("FAMILY", "SIDE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with torch.no_grad():
        if args.peak:
            work_alone(*args.peak, args)
            return
        print(f"{platform.machine()}, {args.threads} threads, torch {torch.__version__}")
        results = []
        for name in args.families:
            results.append(compare(name, args))
            print(json.dumps(results[-1], indent=1), flush=True)
        if args.json:
            args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
