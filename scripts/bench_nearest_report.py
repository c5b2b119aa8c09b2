"""The results of bench_nearest.py: kept in a file, as text, as tables, as a plot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench_nearest_rivals import CONTENDERS, OURS

PLAIN = "vqtok float32"


def key(entry: dict[str, Any]) -> str:
    return json.dumps([entry["data"], entry["shape"], entry["threads"], entry["clock"]])


def read_entries(paths: list[str]) -> dict[str, dict[str, Any]]:
    files = [json.loads(Path(path).read_text()) for path in paths if Path(path).exists()]
    return {key(entry): entry for entries in files for entry in entries}


def write_entries(path: str, entries: list[dict[str, Any]]) -> None:
    merged = read_entries([path]) | {key(entry): entry for entry in entries}
    Path(path).write_text(json.dumps(list(merged.values()), indent=1) + "\n")


def gflops(entry: dict[str, Any], name: str) -> float:
    rows, dim, size = entry["shape"]
    return 2e-6 * rows * dim * size / float(entry["results"][name]["ms"])


def best_rival(entry: dict[str, Any]) -> str | None:
    rivals = [name for name in entry["results"] if not name.startswith(OURS)]
    return min(rivals, key=lambda name: entry["results"][name]["ms"], default=None)


def describe(entry: dict[str, Any]) -> str:
    """One case in full."""
    head = f"{entry['data']} N, D, K = {entry['shape']}, {entry['threads']} threads"
    lines = [f"{head}, peak {entry['peak_gflops']:.0f} GF/s"]
    for name, row in sorted(entry["results"].items(), key=lambda item: item[1]["ms"]):
        speed = gflops(entry, name)
        lines.append(
            f"  {name:24}{row['ms']:10.3f} ms {speed:8.1f} GF/s "
            f"{100 * speed / entry['peak_gflops']:5.0f} % {row['extra_mib']:8.1f} MiB "
            f"{row['wrong']:5} wrong of {row['checked']}"
        )
    return "\n".join(lines)


def peak_share(entry: dict[str, Any]) -> float:
    """What the float32 method reaches of the multiply-add peak, in percent."""
    return 100 * gflops(entry, PLAIN) / float(entry["peak_gflops"])


def readme_table(entries: list[dict[str, Any]]) -> str:
    """The table of the README: a line per case with all its thread counts, by the wall clock."""
    cases: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for entry in entries:
        if (
            entry["clock"] == "wall"
            and {OURS, PLAIN} <= set(entry["results"])
            and best_rival(entry)
        ):
            name = entry["data"], ", ".join(map(str, entry["shape"]))
            cases.setdefault(name, {})[entry["threads"]] = entry
    threads = sorted({count for measured in cases.values() for count in measured})
    head = "| data | N, D, K |"
    for count in threads:
        head += f" {count} thread{'s' * (count > 1)}, ms | ratio | float32, % of FMA peak |"
    lines = [head, "|" + "---|" * (head.count("|") - 1)]
    for name, measured in cases.items():
        row = list(name)
        for count in threads:
            entry = measured.get(count)
            if entry is None:
                row += ["-"] * 3
                continue
            ms, rival = entry["results"][OURS]["ms"], best_rival(entry)
            ratio = entry["results"][rival]["ms"] / ms
            row += [f"{ms:.3g}", f"{ratio:.1f} ({rival})", f"{peak_share(entry):.0f}"]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def table(entries: list[dict[str, Any]]) -> str:
    head = "data | N, D, K | threads, clock | ms | best rival, ms | ratio | float32, % of peak"
    head += " | wrong: ours, rivals | extra MiB: ours, cdist"
    lines = [f"| {head} |", "|" + "---|" * (head.count("|") + 1)]
    for entry in entries:
        results, rival = entry["results"], best_rival(entry)
        ours = results[OURS]
        row = [entry["data"], ", ".join(map(str, entry["shape"]))]
        row.append(f"{entry['threads']}, {entry['clock']}")
        row.append(f"{ours['ms']:.3g}")
        if rival is None:
            row += ["-", "-"]
        else:
            other = results[rival]["ms"]
            row += [f"{rival} {other:.3g}", f"{other / ours['ms']:.1f}"]
        share = f"{peak_share(entry):.0f}" if PLAIN in results else "-"
        wrong = max((r["wrong"] for n, r in results.items() if not n.startswith(OURS)), default=0)
        matrix = f"{results['cdist']['extra_mib']:.0f}" if "cdist" in results else "-"
        row += [share, f"{ours['wrong']}, {wrong}", f"{ours['extra_mib']:.1f}, {matrix}"]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def plot(entries: list[dict[str, Any]], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 1.5 + 0.3 * len(entries)))
    names = [name for name in CONTENDERS if any(name in e["results"] for e in entries)]
    for name in names:
        points = [(gflops(e, name), i) for i, e in enumerate(entries) if name in e["results"]]
        ours = name.startswith(OURS)
        axes.plot(*zip(*points, strict=True), "D" if ours else "o", label=name, alpha=0.8)
    for i, entry in enumerate(entries):
        axes.plot([entry["peak_gflops"]] * 2, [i - 0.4, i + 0.4], color="black", linewidth=1)
    labels = [f"{e['data']} {tuple(e['shape'])} x{e['threads']}" for e in entries]
    axes.set_yticks(range(len(entries)), labels)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("2 N D K / time, GF/s; black: float32 multiply-add peak")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=7, ncols=6, loc="lower center", bbox_to_anchor=(0.4, 1))
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Date": None} if path.endswith(".svg") else None)
