"""What small runs of the ``audio`` tokenizer's recipe and of others reach: quality against time.

    python scripts/audio_recipes.py SOUNDS SPEECH OUT [--steps 200 400 800] [--limit 500]

Trains every recipe of this file for each number of steps (8 excerpts of 1 s a step, from random
weights, one thread) on the first sounds of a list (sounds.txt of get_sounds.py, shuffled), and
scores PESQ-wb and STOI of 12 recordings of SPEECH, unquantized and with all codebooks. Every
finished run is a file in OUT, which a later call does not do again; the table of all of them is
printed, and put into the card of the bundled tokenizer with ``--card``. Needs the extra ``bench``.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch
from evaluate_audio import evaluate
from train_priors import HEADING as PRIOR

from vqtok.autoencoders import build_autoencoder, preset_config
from vqtok.autoencoders.presets import residual_spectral
from vqtok.cli import exit_code
from vqtok.media import list_sources
from vqtok.tokenizer import AudioTokenizer
from vqtok.training import AudioCrops, SoundTask, TrainConfig, Trainer

CARD = Path(__file__).resolve().parent.parent / "vqtok" / "pretrained" / "audio" / "README.md"
HEADING = "## Recipes that were tried\n"
INTRODUCTION = """\
PESQ-wb and STOI of 12 of these recordings, unquantized and with all codebooks, against the
processor time of one thread: small runs from random weights, 8 excerpts of 1 s a step
(`scripts/audio_recipes.py`). kbit/s are of codes at fixed width.
"""


def recipes() -> dict[str, dict[str, Any]]:
    """Model configs by what a reader is told of them."""
    shape = {"channels": 224, "encoder_blocks": 4, "decoder_blocks": 8, "num_codebooks": 10}
    chosen = preset_config("audio")
    without = residual_spectral(**shape).config
    complex_first = json.loads(json.dumps(without))
    complex_first["likelihood"]["spectrum"] = 2.0
    return {
        "as chosen": chosen,
        "without the term of loudness": without,
        "without it, complex spectra with weight 2": complex_first,
        "32-d latents": residual_spectral(**shape, dim=32, loudness=0.4).config,
        "160-d latents at 50 Hz": residual_spectral(**shape, dim=160, hop=480, loudness=0.4).config,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sounds", help="what to train on")
    parser.add_argument("speech", help="what to judge by")
    parser.add_argument("out", type=Path, help="folder of the results")
    parser.add_argument("--steps", type=int, nargs="+", default=[200, 400, 800])
    parser.add_argument("--limit", type=int, default=500, help="of sounds (default: %(default)s)")
    parser.add_argument("--judge", type=int, default=12, help="recordings (default: %(default)s)")
    parser.add_argument("--card", action="store_true", help="write the table into the model card")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    sources = sorted(set(list_sources(args.sounds, "audio")), key=lambda source: source.path)
    random.Random(0).shuffle(sources)
    data: AudioCrops | None = None
    rows = []
    for steps in sorted(args.steps):
        for name, config in recipes().items():
            file = args.out / f"{name.replace(' ', '-').replace(',', '')}-{steps}.json"
            if not file.exists():
                data = data or AudioCrops(
                    sources[: args.limit], sample_rate=24_000, size=24_000, batch_size=8
                )
                row = {"recipe": name, "steps": steps, **run(config, data, steps, args)}
                file.write_text(json.dumps(row), encoding="utf-8")
            rows.append(json.loads(file.read_text(encoding="utf-8")))
    print(table(rows))
    if args.card:
        write_card(table(rows))


def run(
    config: dict[str, Any], data: AudioCrops, steps: int, args: argparse.Namespace
) -> dict[str, Any]:
    """Train and score one recipe."""
    hop = build_autoencoder(config).encoder.hop
    data.size = 24_000 // hop * hop
    settings = TrainConfig(steps=steps, batch_size=8, crop=data.size, save_every=steps, warmup=50)
    started = time.process_time()
    trainer = Trainer(config, data, None, settings, name="recipe", task=SoundTask())
    tokenizer = trainer.fit()
    minutes = (time.process_time() - started) / 60
    assert isinstance(tokenizer, AudioTokenizer)
    whole, coded = evaluate(
        tokenizer, args.speech, [0, tokenizer.num_codebooks], speech=True, limit=args.judge
    )
    keys = ("pesq_wb", "stoi", "mel")
    return {
        "minutes": minutes,
        "kbps": coded["kbps_fixed"],
        "unquantized": {key: whole[key] for key in keys},
        "coded": {key: coded[key] for key in keys},
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = ["| recipe | kbit/s | minutes | unquantized | coded |", "|---|---|---|---|---|"]
    for row in rows:
        pairs = [
            f"{row[kind]['pesq_wb']:.2f}, {row[kind]['stoi']:.3f}"
            for kind in ("unquantized", "coded")
        ]
        lines.append(
            f"| {row['recipe']} | {row['kbps']:.2f} | {row['minutes']:.1f} | {' | '.join(pairs)} |"
        )
    return "\n".join(lines)


def write_card(found: str) -> None:
    """Replace that section of the card; a new one comes before that of the prior, which is last."""
    before, there, rest = CARD.read_text(encoding="utf-8").partition(HEADING)
    if there:
        after = rest[rest.index("\n## ") + 1 :] if "\n## " in rest else ""
    else:
        before, prior, rest = before.partition(PRIOR)
        after = prior + rest
    section = f"{HEADING}\n{INTRODUCTION}\n{found}\n"
    parts = [part.strip("\n") + "\n" for part in (before, section, after) if part]
    CARD.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(exit_code(main))
