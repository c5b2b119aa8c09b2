"""MaskGIT's VQGAN as vqtok imports it beside Google's own code, the package maskgit (in JAX).

The model of the published config with random weights, its codebook filled with latents of a photo;
its tensors go by the names that huggingface/open-muse's published checkpoints have. Exits with 1 if
a code differs, or an image by more than 1e-4. JAX stays out of the environment:

    pip install --no-deps --target jax/ maskgit==0.0.1.dev0 jax jaxlib ml_dtypes opt_einsum \\
        flax ml_collections absl-py
    PYTHONPATH=jax/ JAX_PLATFORMS=cpu python scripts/check_maskgit.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import torch
import torch.nn.functional as F
from flax.traverse_util import flatten_dict, unflatten_dict
from maskgit.configs import vqgan_config
from maskgit.nets.vqgan_tokenizer import VQVAE
from PIL import Image
from torch import Tensor

from vqtok.cli import exit_code
from vqtok.importers import FAMILIES, Checkpoint
from vqtok.samples import photos
from vqtok.tokenizer import Tokenizer

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def names(levels: int, blocks: int) -> Iterator[tuple[str, str]]:
    """Each layer's name in the package, where flax numbers them as they run, and in open-muse."""
    inner = {"GroupNorm_0": "norm1", "Conv_0": "conv1", "GroupNorm_1": "norm2"}
    inner |= {"Conv_1": "conv2", "Conv_2": "nin_shortcut"}
    down = [f"down.{level}.block.{i}" for level in range(levels) for i in range(blocks)]
    up = [f"up.{level}.block.{i}" for level in reversed(range(levels)) for i in range(blocks)]
    middle = [f"mid.{i}" for i in range(blocks)]
    for part, order in (("encoder", down + middle), ("decoder", middle + up)):
        for index, block in enumerate(order):
            for flax, name in inner.items():
                yield f"{part}/ResBlock_{index}/{flax}", f"{part}.{block}.{name}"
        yield f"{part}/GroupNorm_0", f"{part}.norm_out"
        yield f"{part}/Conv_0", f"{part}.conv_in"
    yield "encoder/Conv_1", "encoder.conv_out"
    for index, level in enumerate(reversed(range(1, levels)), start=1):
        yield f"decoder/Conv_{index}", f"decoder.up.{level}.upsample_conv"
    yield f"decoder/Conv_{levels}", "decoder.conv_out"


def published(params: dict[str, Any], levels: int, blocks: int) -> dict[str, Tensor]:
    """The parameters under open-muse's names, in torch's order of axes."""
    known, tensors = dict(names(levels, blocks)), {}
    for path, value in flatten_dict(params, sep="/").items():
        tensor = torch.from_numpy(np.array(value))
        if path == "quantizer/codebook":
            tensors["quantize.embedding.weight"] = tensor
            continue
        layer, _, leaf = path.rpartition("/")
        tensor = tensor.permute(3, 2, 0, 1).contiguous() if leaf == "kernel" else tensor
        tensors[f"{known[layer]}.{LEAVES[leaf]}"] = tensor
    return tensors


def through(model: VQVAE, image: Any) -> Any:
    """All parts of the model once (its own ``__call__`` decodes a pair)."""
    return model.decode(model.encode({"image": image})[0])


def filled(model: VQVAE, image: Any, size: int) -> dict[str, Any]:
    """Random parameters, biases and norms too; the codebook around latents of the image."""
    drawn = np.random.default_rng(0)
    flat = flatten_dict(model.init(jax.random.PRNGKey(0), image, method=through)["params"], sep="/")
    for path, value in flat.items():
        if value.ndim == 1:
            flat[path] = value + 0.1 * drawn.standard_normal(value.shape, np.float32)
    params = unflatten_dict(flat, sep="/")
    raw = np.array(model.apply({"params": params}, {"image": image}, method="encode")[1]["raw"])
    rows = raw.reshape(-1, raw.shape[-1])
    chosen = rows[drawn.integers(len(rows), size=size)]
    noise = 0.3 * rows.std() * drawn.standard_normal(chosen.shape, np.float32)
    flat["quantizer/codebook"] = chosen + noise
    return unflatten_dict(flat, sep="/")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, nargs=2, default=(117, 93), help="height and width")
    height, width = parser.parse_args().size
    config = vqgan_config.get_config()
    sizes = config.vqvae
    path = next(path for path in photos() if path.stem == "cat")
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB")))[:height, :width]
    photo = pixels.permute(2, 0, 1)[None]
    padded = F.pad(photo / 255, (0, -width % 16, 0, -height % 16), mode="replicate")
    image = padded.permute(0, 2, 3, 1).numpy()
    model = VQVAE(config=config, train=False)
    params = filled(model, image, sizes.codebook_size)
    state = {"params": params}
    theirs = np.array(model.apply(state, {"image": image}, method="encode_to_indices"))
    decoded = np.array(model.apply(state, theirs, method="decode_from_indices"))

    tensors = published(params, len(sizes.channel_multipliers), sizes.num_res_blocks)
    tokenizer = Tokenizer(FAMILIES["maskgit"].build(Checkpoint(tensors)), name="maskgit")
    with torch.no_grad():
        codes = tokenizer.encode(photo)
        ours = tokenizer.autoencoder.decoder(tokenizer.autoencoder.quantizer.embed(codes))
    expected = torch.from_numpy(theirs.astype(np.int64))
    differing = int((codes[..., 0] != expected).sum())
    apart = float(((ours + 1) / 2 - torch.from_numpy(decoded).permute(0, 3, 1, 2)).abs().max())
    count = sum(tensor.numel() for tensor in tensors.values())
    print(f"{len(tensors)} tensors, {count:,} numbers")
    print(f"codes that differ: {differing} of {codes.numel()} ({codes.unique().numel()} in use)")
    print(f"images differ by at most {apart:.1e}")
    return int(differing > 0 or apart > 1e-4)


if __name__ == "__main__":
    sys.exit(exit_code(main))
