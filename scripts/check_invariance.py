"""Count the codes that change with what should not matter.

Each photo's codes with two threads are compared with those of one thread, of the network run on a
batch of three, of small tiles, of a network in bfloat16, and of other instruction sets for torch's
convolutions (each in a process of its own). A difference is a near tie that another order of float
additions decided.

    python scripts/check_invariance.py photo KODAK
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from vqtok.cli import exit_code
from vqtok.media import list_sources
from vqtok.media.images import read_image
from vqtok.tokenizer import Tokenizer, to_unit_range
from vqtok.tokenizer import images as tiling

INSTRUCTION_SETS = ("AVX512_CORE", "AVX2", "SSE41")


def codes_of(data: str, encode: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
    """The codes of all photos, flat."""
    photos = [read_image(source).pixels for source in list_sources(data)]
    batches = [torch.from_numpy(photo).permute(2, 0, 1)[None] for photo in photos]
    return np.concatenate([encode(batch).numpy().ravel() for batch in batches])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tokenizer")
    parser.add_argument("data", help="photos")
    parser.add_argument("--save", help=argparse.SUPPRESS)
    args = parser.parse_args()
    tokenizer = Tokenizer.from_pretrained(args.tokenizer)
    if args.save:
        np.save(args.save, codes_of(args.data, tokenizer.encode))
        return

    def in_a_batch(images: torch.Tensor) -> torch.Tensor:
        model = tokenizer.autoencoder
        three = to_unit_range(images).repeat(3, 1, 1, 1)
        with torch.inference_mode():
            latents = model.encoder(three.contiguous(memory_format=torch.channels_last))
            return model.quantizer(latents).codes[1:2]

    torch.set_num_threads(2)
    expected = codes_of(args.data, tokenizer.encode)
    found = {"batch of 3": codes_of(args.data, in_a_batch)}
    whole, tiling._TILE = tiling._TILE, 256
    found["tiles of 256 pixels"] = codes_of(args.data, tokenizer.encode)
    tiling._TILE = whole

    found["bfloat16"] = codes_of(args.data, tokenizer.to(precision="bfloat16").encode)
    tokenizer.to(precision="float32")
    torch.set_num_threads(1)
    found["1 thread"] = codes_of(args.data, tokenizer.encode)
    for name in INSTRUCTION_SETS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "codes.npy"
            command = [sys.executable, __file__, args.tokenizer, args.data, "--save", str(path)]
            subprocess.run(command, check=True, env={**os.environ, "ONEDNN_MAX_CPU_ISA": name})
            found[f"convolutions with {name}"] = np.load(path)
    print(f"{len(expected):,} codes; compared with 2 threads on this machine, changed:")
    for name, codes in found.items():
        print(f"  {name:28s} {int((codes != expected).sum()):6d}")


if __name__ == "__main__":
    sys.exit(exit_code(main))
