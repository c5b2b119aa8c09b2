"""The photos of the demo: every number of codebooks, in bytes and in dB, and a sheet to look at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from demo_common import code_bytes, codebooks, file_bytes, round_trip, run, table
from PIL import Image, ImageDraw

from vqtok.errors import VqtokError
from vqtok.media import list_sources, read_image
from vqtok.tokenizer import ImageTokenizer


@dataclass(frozen=True)
class Rate:
    """One pass over the photos with the first ``num_codebooks`` codebooks."""

    num_codebooks: int
    token_bytes: int  # every file of the token dataset, headers and manifest included
    code_bytes: dict[str, int]  # per photo: its codes alone
    psnr: dict[str, float]  # per photo
    decoded: dict[str, np.ndarray]  # uint8 [H, W, 3] per photo
    seconds: dict[str, float]  # per command, start of the program included


def run_photos(source: str, tokenizer_name: str, out: Path) -> str:
    """Every rate; leaves token files, decoded photos and ``sheet.png``, returns the report."""
    tokenizer = ImageTokenizer.from_pretrained(tokenizer_name)
    originals = {s.uri: read_image(s).pixels for s in list_sources(source)}
    sizes = {s.uri: s.size for s in list_sources(source)}
    rates = [
        measure(source, tokenizer_name, q, originals, out)
        for q in range(1, tokenizer.num_codebooks + 1)
    ]
    inspected = run("inspect", str(out / f"tokens-{rates[-1].num_codebooks}"))[0]
    draw_sheet(originals, rates, out / "sheet.png")
    return report_text(tokenizer, originals, sizes, rates, inspected)


def measure(
    source: str, tokenizer: str, q: int, originals: dict[str, np.ndarray], out: Path
) -> Rate:
    """Encode, verify and decode with q codebooks; compare with the originals."""
    tokens, decoded_folder = out / f"tokens-{q}", out / f"decoded-{q}"
    seconds = round_trip(source, tokenizer, q, tokens, decoded_folder)
    decoded = {name: read_image(decoded_file(decoded_folder, name)).pixels for name in originals}
    return Rate(
        num_codebooks=q,
        token_bytes=file_bytes(tokens),
        code_bytes=code_bytes(tokens),
        psnr={name: psnr(originals[name], decoded[name]) for name in originals},
        decoded=decoded,
        seconds=seconds,
    )


def decoded_file(folder: Path, name: str) -> Path:
    path = (folder / name).with_suffix(".png")
    if not path.exists():
        raise VqtokError(f"{path}: was not decoded")
    return path


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 [H, W, 3] images; inf when equal."""
    if a.shape != b.shape:
        raise VqtokError(f"decoded to {b.shape}, the photo is {a.shape}")
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def report_text(
    tokenizer: ImageTokenizer,
    originals: dict[str, np.ndarray],
    sizes: dict[str, int],
    rates: list[Rate],
    inspected: str,
) -> str:
    """The report as Markdown, its tables readable as plain text."""
    pixels = {name: image.shape[0] * image.shape[1] for name, image in originals.items()}
    total = sum(pixels.values())
    return f"""# Photos to tokens and back

{len(originals)} photos, {total / 1e6:.2f} Mpx, {sum(sizes.values()):,} bytes as files.

Tokenizer `{tokenizer.name}`: codebooks of {", ".join(map(str, tokenizer.codebook_sizes))}; one code
of each for every {tokenizer.downsample}x{tokenizer.downsample} pixels; fingerprint
`{tokenizer.fingerprint[:16]}`.

## Every rate

{rate_table(rates, total)}

Code bytes are the packed codes alone; file bytes are every file of the token dataset, with
headers, metadata, checksums and manifest, which so few photos cannot spread thin. PSNR is the mean
over the photos. Times include starting the program.

## Every photo

{photo_table(originals, sizes, pixels, rates)}

Code bytes and bpp are those of {codebooks(rates[-1].num_codebooks)}; PSNR is given for each number.

## The token files

```
{inspected.strip()}
```
"""


def rate_table(rates: list[Rate], total_pixels: int) -> str:
    """One row per number of codebooks."""
    head = ["codebooks", "code bytes", "file bytes", "bpp", "bpp of files", "PSNR dB"]
    rows = []
    for rate in rates:
        codes = sum(rate.code_bytes.values())
        row = [
            f"{rate.num_codebooks}",
            f"{codes:,}",
            f"{rate.token_bytes:,}",
            f"{8 * codes / total_pixels:.3f}",
            f"{8 * rate.token_bytes / total_pixels:.3f}",
            f"{sum(rate.psnr.values()) / len(rate.psnr):.2f}",
        ]
        rows.append(row + [f"{seconds:.1f} s" for seconds in rate.seconds.values()])
    return table(head + list(rates[0].seconds), rows)


def photo_table(
    originals: dict[str, np.ndarray],
    sizes: dict[str, int],
    pixels: dict[str, int],
    rates: list[Rate],
) -> str:
    """One row per photo."""
    head = ["photo", "pixels", "file bytes", "code bytes", "bpp"]
    head += [f"dB, q={rate.num_codebooks}" for rate in rates]
    code_bytes = rates[-1].code_bytes
    rows = []
    for name, image in originals.items():
        row = [
            name,
            f"{image.shape[1]}x{image.shape[0]}",
            f"{sizes[name]:,}",
            f"{code_bytes[name]:,}",
            f"{8 * code_bytes[name] / pixels[name]:.3f}",
        ]
        rows.append(row + [f"{rate.psnr[name]:.2f}" for rate in rates])
    return table(head, rows)


def draw_sheet(originals: dict[str, np.ndarray], rates: list[Rate], path: Path) -> None:
    """One row per photo: the original, then what each number of codebooks gives back."""
    width, caption = 400, 18
    columns = [("original", originals)]
    columns += [(codebooks(rate.num_codebooks), rate.decoded) for rate in rates]
    heights = {n: round(width * image.shape[0] / image.shape[1]) for n, image in originals.items()}
    size = (width * len(columns), sum(heights.values()) + caption * len(heights))
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    top = 0
    for name, height in heights.items():
        for i, (label, images) in enumerate(columns):
            scaled = Image.fromarray(images[name]).resize((width, height), Image.Resampling.LANCZOS)
            sheet.paste(scaled, (i * width, top + caption))
            text = f"{name}: {label}"
            if i:
                text = f"{label}, {rates[i - 1].psnr[name]:.2f} dB"
            pen.text((i * width + 3, top + 3), text, fill="black")
        top += height + caption
    sheet.save(path)
