"""What the model of train_multimodal.py makes, decoded to image and sound files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from multimodal_model import Decoder
from PIL import Image

from vqtok import Tokenizer, TokenReader, Vocabulary
from vqtok.media import write_audio
from vqtok.tokens.sequences import Parsed


def write_samples(
    model: Decoder,
    vocabulary: Vocabulary,
    kinds: Mapping[str, tuple[str, Path]],
    lengths: Mapping[str, int],
    out: Path,
    *,
    count: int,
    caption: Callable[[Mapping[str, Any]], str],
    seed: int,
) -> None:
    """``count`` samples of each kind for captions of its dataset, and captions.txt with problems.

    Args:
        kinds: by layout, its tokenizer and the dataset whose captions are used.
        lengths: most tokens of a sample, by layout.
        out: the folder; files of an earlier call are replaced.
    """
    out.mkdir(exist_ok=True)
    model.eval()
    torch.manual_seed(seed)
    lines = []
    for name, (tokenizer, folder) in kinds.items():
        layout = vocabulary.layouts[name]
        reader = TokenReader(folder)
        decoder = Tokenizer.from_pretrained(tokenizer)
        for number in range(count):
            meta = reader.meta(number * len(reader) // count)
            text = caption(meta)
            prompt = [*vocabulary.tokens([text])[:-1].tolist(), layout.begin]
            ends = [layout.end, vocabulary.end]
            tokens = model.generate(torch.tensor(prompt), ends, lengths[name])
            parsed = layout.parse(tokens[len(prompt) - 1 :].numpy())
            lines.append(f"{name}-{number}: {text}: {'; '.join(parsed.problems) or 'well-formed'}")
            if parsed.codes.size:
                write_one(decoder, parsed, out / f"{name}-{number}")
    (out / "captions.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    model.train()


def write_one(decoder: Tokenizer, parsed: Parsed, path: Path) -> None:
    """An image (.png) or a sound (.wav) of the codes."""
    codes = torch.from_numpy(parsed.codes)[None]
    h_or_t, w_or_c = codes.shape[1:3]
    if decoder.modality == "image":
        size = (h_or_t * decoder.downsample, w_or_c * decoder.downsample)
        image = decoder.decode(codes, size=size)[0]
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path.with_suffix(".png"))
        return
    sound = decoder.decode(codes)[0]
    write_audio(path.with_suffix(".wav"), sound.numpy(), decoder.sample_rate)
