"""Photos to token files and back: what it does, what it costs, how it looks.

Runs the command line on the bundled sample photos, once for every number of codebooks, and leaves
token files, decoded photos, a side-by-side sheet and a report in one folder. No network.

    python scripts/demo.py                  # everything goes to ./demo
    python scripts/demo.py --out mine --tokenizer runs/mine --photos ~/Pictures
"""

from __future__ import annotations

import argparse
import math
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vqtok import Tokenizer, TokenReader
from vqtok.errors import VqtokError
from vqtok.media import list_sources, read_image
from vqtok.samples import photos

MARK = "vqtok-demo"  # a file that says that the folder is ours to empty


@dataclass(frozen=True)
class Rate:
    """One pass over the photos with the first ``num_codebooks`` codebooks."""

    num_codebooks: int
    token_bytes: int  # every file of the token dataset, headers and manifest included
    code_bytes: dict[str, int]  # per photo: its codes alone
    psnr: dict[str, float]  # per photo
    decoded: dict[str, np.ndarray]  # uint8 [H, W, 3] per photo
    seconds: dict[str, float]  # per command, start of the program included


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder (default: demo)")
    parser.add_argument("--tokenizer", default="photo", help="name or folder (default: photo)")
    parser.add_argument("--photos", help="folder of photos (default: the bundled ones)")
    options = parser.parse_args()
    source = str(options.photos or photos()[0].parent)
    try:
        prepare(options.out)
        run_demo(source, options.tokenizer, options.out)
    except VqtokError as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"demo: error: {shlex.join(error.cmd)} failed ({error.returncode})", file=sys.stderr)
        return 1
    return 0


def prepare(out: Path) -> None:
    """An empty folder; one that holds anything but an earlier demo is left alone."""
    if out.exists() and any(out.iterdir()) and not (out / MARK).exists():
        raise VqtokError(f"{out}: exists and is not an earlier demo; choose another with --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARK).touch()


def run_demo(source: str, tokenizer_name: str, out: Path) -> None:
    """Every rate, then the report."""
    start = time.perf_counter()
    tokenizer = Tokenizer.from_pretrained(tokenizer_name)
    originals = {s.uri: read_image(s).pixels for s in list_sources(source)}
    sizes = {s.uri: s.size for s in list_sources(source)}
    rates = [
        measure(source, tokenizer_name, q, originals, out)
        for q in range(1, tokenizer.num_codebooks + 1)
    ]
    inspected = run("inspect", str(out / f"tokens-{rates[-1].num_codebooks}"))[0]
    draw_sheet(originals, rates, out / "sheet.png")
    report = report_text(tokenizer, originals, sizes, rates, inspected)
    (out / "report.md").write_text(report, encoding="utf-8")
    print(f"\n{report}")
    print(f"{time.perf_counter() - start:.0f} s. Look at {out / 'sheet.png'} and {out}/decoded-*.")


def run(*arguments: str) -> tuple[str, float]:
    """One vqtok command in a process of its own: its standard output, and seconds."""
    command = [sys.executable, "-m", "vqtok", *arguments]
    print("$", shlex.join(["vqtok", *arguments]), flush=True)
    start = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout, time.perf_counter() - start


def measure(
    source: str, tokenizer: str, q: int, originals: dict[str, np.ndarray], out: Path
) -> Rate:
    """Encode, verify and decode with q codebooks; compare with the originals."""
    tokens, decoded_folder = out / f"tokens-{q}", out / f"decoded-{q}"
    seconds = {}
    choice = ["--tokenizer", tokenizer, "--num-codebooks", str(q), "--pack", "bits"]
    seconds["encode"] = run("encode", source, str(tokens), *choice)[1]
    seconds["verify"] = run("verify", str(tokens))[1]
    decode = ["decode", str(tokens), str(decoded_folder), "--tokenizer", tokenizer]
    seconds["decode"] = run(*decode)[1]
    decoded = {name: read_image(decoded_file(decoded_folder, name)).pixels for name in originals}
    return Rate(
        num_codebooks=q,
        token_bytes=sum(path.stat().st_size for path in tokens.rglob("*") if path.is_file()),
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


def code_bytes(tokens: Path) -> dict[str, int]:
    """Bytes of each photo's codes: every codebook's plane packed, in whole bytes."""
    reader = TokenReader(tokens)
    sizes = {}
    for i in range(len(reader)):
        sample = reader[i]
        count = math.prod(sample.codes.shape[:-1])
        bits = [math.ceil(math.log2(size)) for size in reader.header.codebook_sizes]
        sizes[sample.meta["source"]] = sum(-(-count * b // 8) for b in bits)
    return sizes


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 [H, W, 3] images; inf when equal."""
    if a.shape != b.shape:
        raise VqtokError(f"decoded to {b.shape}, the photo is {a.shape}")
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def report_text(
    tokenizer: Tokenizer,
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

Code bytes and bpp are those of {codebooks(rates[-1])}; PSNR is given for each number.

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


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, padded: the first column to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: list[str]) -> str:
        padded = [cells[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(head), line(rule), *map(line, rows)])


def draw_sheet(originals: dict[str, np.ndarray], rates: list[Rate], path: Path) -> None:
    """One row per photo: the original, then what each number of codebooks gives back."""
    width, caption = 400, 18
    columns = [("original", originals)]
    columns += [(codebooks(rate), rate.decoded) for rate in rates]
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


def codebooks(rate: Rate) -> str:
    return f"{rate.num_codebooks} codebook{'s' if rate.num_codebooks > 1 else ''}"


if __name__ == "__main__":
    sys.exit(main())
