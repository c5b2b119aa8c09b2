"""A rate-distortion plot of one metric, and a table in Markdown, from the results of vqtok bench.

vqtok bench KODAK --out report --published kodak
python scripts/plot_bench.py report/results.json --plot kodak.svg --top 1.0
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vqtok.bench.results import Codec, Results
from vqtok.cli import exit_code


def table(results: Results, top: float) -> str:
    """A row per point of every codec that was measured, up to a rate."""
    names = [metric.name for metric in results.metrics]
    lines = [
        f"| codec | setting | {results.rate_unit} | " + " | ".join(names) + " |",
        "|---|---|" + "---:|" * (len(names) + 1),
    ]
    for codec in results.codecs:
        for point in codec.points:
            if codec.kind != "external" and point.rate <= top:
                cells = [f"{point.mean[n]:.4g}" if n in point.mean else "" for n in names]
                row = [codec.name, point.setting, f"{point.rate:.3f}", *cells]
                lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def deltas(results: Results, metric: str) -> str:
    """Bjontegaard deltas by one metric."""
    lines = [f"| against {results.anchor}, by {metric} | rate | quality |", "|---|---:|---:|"]
    for each in results.bd:
        if each.metric == metric:
            rate = "" if each.rate_percent is None else f"{each.rate_percent:+.1f} %"
            quality = "" if each.quality is None else f"{each.quality:+.3g}"
            lines.append(f"| {each.codec} | {rate} | {quality} |")
    return "\n".join(lines)


def plot(results: Results, metric: str, top: float, path: Path) -> None:
    """Curves of all codecs; external ones dashed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    for codec in results.codecs:
        points = [point for point in codec.curve(metric) if point.rate_of(metric) <= top]
        if points:
            axes.errorbar(
                [point.rate_of(metric) for point in points],
                [point.mean[metric] for point in points],
                [point.deviation.get(metric, 0.0) for point in points],
                label=_label(codec),
                marker="o",
                markersize=4,
                linewidth=2 if codec.kind == "tokenizer" else 1,
                linestyle="--" if codec.kind == "external" else "-",
                elinewidth=0.5,
            )
    unit = next(each.unit for each in results.metrics if each.name == metric)
    axes.set_xlabel(f"{results.rate_unit}, whole files")
    axes.set_ylabel(f"{metric} {unit}".strip())
    axes.set_title(f"{results.data}: means over {len(results.common)}, standard errors")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=2)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _label(codec: Codec) -> str:
    return f"{codec.name} (external)" if codec.kind == "external" else codec.name


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="results.json of a bench")
    parser.add_argument("--metric", help="what to plot (default: the first one)")
    parser.add_argument("--top", type=float, default=float("inf"), help="highest rate shown")
    parser.add_argument("--plot", type=Path, help="the picture: .svg or .png")
    args = parser.parse_args()
    results = Results.load(args.results)
    metric = args.metric or results.metrics[0].name
    if metric not in [each.name for each in results.metrics]:
        parser.error(f"no metric {metric}")
    print(table(results, args.top))
    if results.bd:
        print("\n" + deltas(results, metric))
    if args.plot:
        plot(results, metric, args.top, args.plot)


if __name__ == "__main__":
    sys.exit(exit_code(main))
