"""A small language model of captions, photos and sounds, from token datasets to decoded samples.

One vocabulary holds UTF-8 text, the codes of photos and the codes of sounds. Captions are the words
of the file names, or those of ``--captions``: lines {"source": ..., "text": ...}. A document is a
caption and a window of a photo, or of a sound; documents are packed end to end and do not see one
another. Bits per token are reported beside order-0 entropy: what is left of a token when only its
frequency is known.

    vqtok encode photos/ photo-tokens/ --num-codebooks 1
    vqtok encode sounds/ sound-tokens/ --num-codebooks 2
    python scripts/train_multimodal.py photo-tokens/ sound-tokens/ --out run/ --steps 2000
    torchrun --nproc-per-node 2 scripts/train_multimodal.py photo-tokens/ sound-tokens/ --out run/

The same command goes on where a run stopped. ``run/`` holds vocabulary.json, metrics.jsonl, the
checkpoint and samples/, images and sounds that the model made.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from multimodal_model import Decoder
from multimodal_samples import write_samples
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from vqtok import TokenDataset, TokenReader, TokenSource, TokenStream, Vocabulary
from vqtok.cli import exit_code
from vqtok.errors import UsageError
from vqtok.training.checkpoint import CHECKPOINT_NAME, read_checkpoint, restore, save_checkpoint
from vqtok.training.metrics import append_line, forget_after
from vqtok.training.players import Player
from vqtok.training.ranks import joined, this_rank, wait_for_all, world_size


@dataclass
class Captions:
    """Text of a sample: that of its source in ``texts``, else the words of its file name."""

    texts: dict[str, str] = field(default_factory=dict)

    def __call__(self, meta: Mapping[str, Any]) -> str:
        source = str(meta.get("source", ""))
        if source in self.texts:
            return self.texts[source]
        stem = source.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        return " ".join(re.findall(r"[^\W\d_]+", stem)).lower()


def make_dataset(
    args: argparse.Namespace, folders: Sequence[Path | None], vocabulary: Vocabulary
) -> TokenDataset:
    """The documents of photos and sounds, packed."""
    texts = {}
    if args.captions is not None:
        lines = args.captions.read_text(encoding="utf-8").splitlines()
        texts = {line["source"]: line["text"] for line in map(json.loads, lines)}
    window, frames = args.photo_window, args.sound_window
    sources = [
        TokenSource(
            folder,
            name,
            repeat=args.photo_repeat if name == "photo" else args.sound_repeat,
            caption=Captions(texts),
            window=(window, window) if name == "photo" else (frames, 1),
        )
        for name, folder in zip(("photo", "sound"), folders, strict=True)
        if folder is not None
    ]
    return TokenDataset(sources, args.length, vocabulary, seed=args.seed, damaged="pad")


def make_vocabulary(photos: Path, sounds: Path, sound_codebooks: int) -> Vocabulary:
    """Text, rows of the first codebook of photos, delayed codebooks of sounds."""
    photo = TokenReader(photos).header.codebook_sizes[:1]
    sound = TokenReader(sounds).header.codebook_sizes[:sound_codebooks]
    return Vocabulary.build({"photo": ("raster", photo), "sound": ("delay", sound)})


def kinds_of(vocabulary: Vocabulary) -> tuple[list[str], Tensor]:
    """Kinds of tokens, and the kind of each token: int64 [size]. The rest are marks."""
    names, kinds = ["marks", "text"], torch.zeros(vocabulary.size, dtype=torch.int64)
    kinds[list(vocabulary.text)] = 1
    for name, layout in vocabulary.layouts.items():
        for book in layout.codebooks:
            kinds[book.first : book.stop] = len(names)
            names.append(name if layout.num_codebooks == 1 else f"{name} {len(names) - 3}")
    return names, kinds


def targets_of(batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The next token of each position [B, L-1], and where it is of the same document: bool."""
    segments = batch["segments"]
    inside = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
    return batch["tokens"][:, 1:], inside


def losses_of(model: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Nats float32 [n] of the next tokens int64 [n] that count."""
    targets, inside = targets_of(batch)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(
            batch["tokens"][:, :-1], batch["segments"][:, :-1], batch["positions"][:, :-1]
        )
    targets = targets[inside]
    return F.cross_entropy(logits[inside].float(), targets, reduction="none"), targets


class Frequencies:
    """An order-0 model: each token by its frequency among its kind in the training data."""

    def __init__(self, dataset: TokenDataset, names: list[str], kinds: Tensor) -> None:
        counts = torch.ones(len(kinds), dtype=torch.float64)
        every = max(1, len(dataset) // 2000)
        for index in range(0, len(dataset), every):
            item = dataset[index]
            tokens = torch.from_numpy(item["tokens"][item["segments"] > 0])
            counts += torch.bincount(tokens, minlength=len(counts))
        totals = torch.zeros(len(names), dtype=torch.float64).index_add_(0, kinds, counts)
        self.bits = -(counts / totals[kinds]).log2()


@torch.no_grad()
def evaluate(
    model: Any, stream: TokenStream, batches: int, frequencies: Frequencies, names: Any, kinds: Any
) -> dict[str, list[float]]:
    """[bits of the model, bits at order 0] per token, by kind and of all, on the first batches."""
    model.eval()
    sums = torch.zeros(len(names), 3, dtype=torch.float64)
    for batch, _ in zip(stream, range(batches), strict=False):
        nats, targets = losses_of(model, batch)
        each = [nats.double() / torch.log(torch.tensor(2.0)), frequencies.bits[targets]]
        rows = torch.stack([*each, torch.ones_like(each[0])], 1)
        sums.index_add_(0, kinds[targets], rows)
    model.train()
    table = [*zip(names, sums, strict=True), ("all", sums.sum(0))]
    return {
        name: [round(float(value / row[2]), 3) for value in row[:2]]
        for name, row in table
        if row[2] > 0
    }


def learning_rate(args: argparse.Namespace, step: int) -> float:
    """Linear warm-up, then linear to a tenth."""
    warm = min(1.0, (step + 1) / args.warmup)
    return args.learning_rate * warm * (1 - 0.9 * step / args.steps)


def train(args: argparse.Namespace) -> None:
    """The whole run; see the module."""
    torch.manual_seed(args.seed)
    vocabulary = make_vocabulary(args.photos, args.sounds, args.sound_codebooks)
    names, kinds = kinds_of(vocabulary)
    dataset = make_dataset(args, (args.photos, args.sounds), vocabulary)
    stream = TokenStream(dataset, args.batch_size)
    held_out = (args.held_out_photos, args.held_out_sounds)
    test = make_dataset(args, held_out, vocabulary) if any(held_out) else dataset
    model = Decoder(vocabulary.size, args.dim, args.layers, args.heads)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1, betas=(0.9, 0.95))
    player = Player(model, optimizer)
    settings = {
        "model": [args.dim, args.layers, args.heads],
        "vocabulary": vocabulary.to_json(),
        "steps": args.steps,
        "learning_rate": args.learning_rate,
    }
    done = 0
    if (args.out / CHECKPOINT_NAME).exists():
        done, run, tensors = read_checkpoint(args.out)
        if run["settings"] != json.loads(json.dumps(settings)):
            raise UsageError(f"{args.out} holds a run with other settings; choose another --out")
        restore(args.out, tensors, {"": player}, {})
        stream.load_state_dict(run["stream"])
    first = this_rank() == 0
    if first:
        args.out.mkdir(parents=True, exist_ok=True)
        vocabulary.save(args.out / "vocabulary.json")
        forget_after(args.out, done)
        print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {asdict_(dataset)}")
        frequencies = Frequencies(dataset, names, kinds)

    def report(step: int, train_bits: float, pace: float) -> None:
        same = TokenStream(test, args.batch_size, epochs=1, rank=0, ranks=1)
        scores = evaluate(model, same, args.test_batches, frequencies, names, kinds)
        line = {"step": step, "train": round(train_bits, 3), "tokens_per_second": round(pace)}
        append_line(args.out, {**line, "held_out": scores})
        shown = ", ".join(f"{name} {own:.2f} ({zero:.2f})" for name, (own, zero) in scores.items())
        print(f"step {step}: {line['train']:.2f} bits; held out (order 0): {shown}", flush=True)

    learner: Any = DistributedDataParallel(model) if world_size() > 1 else model
    total, count, started = 0.0, 0, time.monotonic()
    loader = DataLoader(stream, batch_size=None, num_workers=args.workers)
    for taken, batch in enumerate(loader, 1):
        if done == args.steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(args, done)
        nats, _ = losses_of(learner, batch)
        optimizer.zero_grad(set_to_none=True)
        (nats.mean() if len(nats) else nats.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        done += 1
        total, count = total + float(nats.detach().sum()), count + len(nats)
        if first and (done % args.log_every == 0 or done == args.steps):
            seconds = time.monotonic() - started
            report(done, total / max(1, count) / 0.6931472, world_size() * count / seconds)
            total, count, started = 0.0, 0, time.monotonic()
        if done % args.save_every == 0 or done == args.steps:
            if first:
                run = {"settings": settings, "stream": stream.state_dict(taken)}
                save_checkpoint(args.out, step=done, run=run, players={"": player}, average={})
                sample(args, model, vocabulary, dataset)
            wait_for_all()


def sample(
    args: argparse.Namespace, model: Decoder, vocabulary: Vocabulary, dataset: TokenDataset
) -> None:
    """Photos and sounds that the model makes for captions of the training data."""
    if args.samples == 0:
        return
    lengths = {"photo": args.photo_window * (args.photo_window + 1) + 2}
    lengths["sound"] = (args.sound_window + args.sound_codebooks - 1) * args.sound_codebooks + 2
    write_samples(
        model,
        vocabulary,
        {
            "photo": (args.photo_tokenizer, args.photos),
            "sound": (args.sound_tokenizer, args.sounds),
        },
        lengths,
        args.out / "samples",
        count=args.samples,
        caption=Captions(),
        seed=args.seed,
    )


def asdict_(dataset: TokenDataset) -> str:
    """The account of an epoch on one line."""
    return ", ".join(f"{name} {value:,}" for name, value in asdict(dataset.account(0)).items())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, help="token dataset of photos")
    parser.add_argument("sounds", type=Path, help="token dataset of sounds (middle channel)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--held-out-photos", type=Path, help="token dataset to evaluate on")
    parser.add_argument("--held-out-sounds", type=Path)
    parser.add_argument("--captions", type=Path, help="JSON lines of source and text")
    parser.add_argument("--photo-tokenizer", default="photo", help="that decodes samples")
    parser.add_argument("--sound-tokenizer", default="audio")
    parser.add_argument("--photo-window", type=int, default=16, help="codes per side")
    parser.add_argument("--sound-window", type=int, default=150, help="frames of codes")
    parser.add_argument("--photo-repeat", type=float, default=1.0, help="windows of a photo, epoch")
    parser.add_argument("--sound-repeat", type=float, default=1.0)
    parser.add_argument("--sound-codebooks", type=int, default=2)
    parser.add_argument("--length", type=int, default=512, help="tokens of a sequence")
    parser.add_argument("--batch-size", type=int, default=16, help="sequences, per rank")
    parser.add_argument("--dim", type=int, default=192)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--warmup", type=int, default=50)
    parser.add_argument("--log-every", type=int, default=100)
    parser.add_argument("--save-every", type=int, default=500)
    parser.add_argument("--test-batches", type=int, default=8)
    parser.add_argument("--samples", type=int, default=4, help="of each kind, at every checkpoint")
    parser.add_argument("--workers", type=int, default=0, help="processes that read tokens")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    with joined("cpu"):
        train(args)


if __name__ == "__main__":
    sys.exit(exit_code(main))
