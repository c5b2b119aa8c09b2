"""Bytes of a text through a codebook and back: what comes back, by length, and at which rate.

Windows of the text (half of them cut to random lengths) become a fixed number of codes; decoding
starts from the codes alone and says by itself where to stop. What is scored is the end of the
text, which was not trained on. The default text is that of Python's own help topics. Beside the
model stands what needs no learning: a table of the most frequent pieces of bytes (pairs, by
default), as many as a codebook has, each code one piece; a piece that is missing is wrong.

    nice -n 15 python scripts/text_round_trip.py --threads 1
    nice -n 15 python scripts/text_round_trip.py --data book.txt --bottleneck fsq
    nice -n 15 python scripts/text_round_trip.py --model rnn --width 128 --steps 4000
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections import Counter
from pathlib import Path

import torch

from vqtok.autoencoders.options import Options
from vqtok.autoencoders.seq2seq import seq2seq_conv, seq2seq_rnn, seq2seq_transformer
from vqtok.cli import exit_code
from vqtok.media.text import TEXT_SYMBOLS, read_text, symbols_text, text_symbols
from vqtok.training.fit import default_config
from vqtok.training.fit_sequences import FittedSequences, fit_sequences
from vqtok.training.sequences import padded

HELD_OUT = 0.05
MODELS = {"rnn": seq2seq_rnn, "transformer": seq2seq_transformer, "conv": seq2seq_conv}


def help_topics() -> bytes:
    """About half a megabyte of English."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics)).encode()


def table_of_pieces(train: bytes, test: bytes, length: int, latents: int, size: int) -> str:
    """What the ``size`` most frequent pieces of training text would leave wrong."""
    piece = -(-length // latents)
    counts = Counter(train[start : start + piece] for start in range(len(train) - piece + 1))
    known = {found for found, _ in counts.most_common(size)}
    pieces = [test[start : start + piece] in known for start in range(len(test) - piece + 1)]
    windows = [
        all(pieces[start : start + length : piece][: length // piece])
        for start in range(len(test) - length + 1)
    ]
    return (
        f"table of {size:,} pieces of {piece} bytes: {1 - sum(pieces) / len(pieces):.2%} of pieces "
        f"missing, {sum(windows) / len(windows):.1%} of windows of {length} whole"
    )


def show(fitted: FittedSequences, text: bytes, length: int) -> None:
    """Print pieces of the text's end and what becomes of them."""
    tail = text[-40 * length :]
    pieces = [tail[start : start + length] for start in range(0, 8 * length, length)]
    batch = padded([text_symbols(piece) for piece in pieces])
    made = fitted.model.inverse_transform(fitted.model.transform(batch.values, batch.mask))
    for piece, symbols in zip(pieces, made, strict=True):
        back = symbols_text(symbols)
        print(f"  {piece!r:{length + 8}} {'=' if back == piece else '!'} {back!r}")


def main() -> None:
    """Train, and print what comes back."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a text (default: Python's help topics)")
    parser.add_argument("--model", choices=list(MODELS), default="conv")
    parser.add_argument("--bottleneck", choices=["vq", "fsq"], default="vq")
    parser.add_argument("--length", type=int, default=16, help="bytes of a window")
    parser.add_argument("--latents", type=int, default=8, help="codes of a window")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="write the results here as well")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    text = help_topics() if options.data is None else read_text(options.data)
    model = MODELS[options.model](
        (options.length + 1,),
        Options(hidden=(options.width,)),
        symbols=TEXT_SYMBOLS,
        latents=options.latents,
        bottleneck=options.bottleneck,
    )
    config = default_config(
        steps=options.steps, batch_size=32, learning_rate=3e-3, clip=1.0, seed=options.seed
    )
    started = time.process_time()
    fitted = fit_sequences(model, [text], config, length=options.length, held_out=HELD_OUT)
    seconds = time.process_time() - started
    size = fitted.model.quantizer.codebook_sizes[0]
    bits = options.latents * math.log2(size)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {options.threads} threads, torch "
        f"{torch.__version__}; {options.model}, {options.bottleneck}, {options.steps} steps, "
        f"{seconds:.0f} CPU seconds"
    )
    print(
        f"{len(text):,} bytes; windows of {options.length}: {options.latents} codes of {size:,}, "
        f"{bits / options.length:.2f} bits per byte instead of 8"
    )
    cut = round(len(text) * (1 - HELD_OUT))
    print(table_of_pieces(text[:cut], text[cut:], options.length, options.latents, size))
    print(fitted)
    show(fitted, text, options.length)
    if options.json is not None:
        options.json.write_text(json.dumps(fitted.facts(), indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(exit_code(main))
