"""The parts of the page that stand still: the answer, the frames of the plots, the small print."""

from __future__ import annotations

from collections.abc import Iterable

from vqtok.bench.report import marks
from vqtok.bench.report.answer import answer
from vqtok.bench.report.marks import marked
from vqtok.bench.report.numbers import plural
from vqtok.bench.report.tables import bd_table, codebooks, failures, points_table, speed_table
from vqtok.bench.report.tags import Markup, Text, join, section, tag
from vqtok.bench.results import Metric, Results

_PARTS = (
    ("answer", "Answer"),
    ("curves", "Curves"),
    ("compare", "Compare"),
    ("bd", "BD"),
    ("codebooks", "Codebooks"),
    ("speed", "Speed"),
    ("details", "Details"),
)


def markers() -> Markup:
    """The shapes that stand for codecs."""
    return marks.symbols()


def main(results: Results, *, has_media: bool) -> Markup:
    """Everything above the footer."""
    parts = {
        "answer": answer(results),
        "curves": _curves(results),
        "compare": _compare(results) if has_media else None,
        "bd": bd_table(results),
        "codebooks": codebooks(results),
        "speed": speed_table(results),
        "details": _details(results),
    }
    made = [(name, title) for name, title in _PARTS if parts[name]]
    return join([_header(results, made), *(parts[name] for name, _ in made)])


def _header(results: Results, parts: list[tuple[str, str]]) -> Markup:
    nouns = {"image": "image", "audio": "sound"}
    facts = [
        plural(len(results.codecs), "codec"),
        plural(len(results.samples), nouns[results.modality]),
        plural(len(results.metrics), "metric"),
    ]
    links = (tag("a", title, href=f"#{name}") for name, title in parts)
    toggle = tag("button", "Dark", id="theme", type="button", aria_pressed="false")
    notes = list(results.notes)
    if results.quick:
        notes.insert(0, "A quick run: take it for a first look only.")
    return tag(
        "header",
        tag("div", tag("p", "vqtok bench", class_="kicker"), toggle, class_="bar"),
        tag("h1", results.data),
        tag("p", ", ".join(facts), class_="lead"),
        _left_out(results),
        tag("ul", join(tag("li", note) for note in notes), class_="notice") if notes else None,
        tag("nav", join(links), aria_label="Parts of the report"),
    )


def _left_out(results: Results) -> Markup | None:
    """Which samples no mean has; None if every codec coded every sample."""
    if not results.failed:
        return None
    dropped = len(results.samples) - len(results.common)
    names = sorted({failure.codec for failure in results.failed})
    return tag(
        "p",
        tag(
            "strong",
            f"All means are over {len(results.common)} of {len(results.samples)} samples. ",
        ),
        f"The other {dropped} failed with {', '.join(names)}: ",
        tag("a", "see which and why", href="#failures"),
        ".",
        class_="notice warning",
    )


def _curves(results: Results) -> Markup:
    keys = (
        tag(
            "button",
            marked(results, codec),
            type="button",
            class_="key",
            aria_pressed="true",
            data_codec=place,
            title=codec.description,
        )
        for place, codec in enumerate(results.codecs)
    )
    scale = tag("label", tag("input", type="checkbox", id="log", checked=True), " Logarithmic rate")
    bars = "Bars: standard error of the mean over the samples. "
    external = any(codec.kind == "external" for codec in results.codecs)
    dashed = "Dashed: external curves, published by others and not measured here. "
    reading = "Point at a curve for its values, or move along it with the arrow keys."
    return section(
        "curves",
        "Rate against quality",
        tag("p", bars + (dashed if external else "") + reading, class_="hint"),
        tag(
            "div",
            join(keys),
            scale,
            class_="controls",
            id="keys",
            role="group",
            aria_label="Codecs to draw",
        ),
        tag("div", join(map(_plot, results.metrics)), class_="plots"),
    )


def _plot(metric: Metric) -> Markup:
    better = "higher is better" if metric.higher_is_better else "lower is better"
    unit = f"{metric.unit}, " if metric.unit else ""
    return tag(
        "figure",
        tag("figcaption", tag("strong", metric.name), f" {unit}{better}"),
        tag("div", class_="canvas"),
        tag("output", class_="tip", hidden=True),
        class_="plot",
        data_metric=metric.name,
    )


def _compare(results: Results) -> Markup:
    tokenizers = any(codec.kind == "tokenizer" for codec in results.codecs)
    matched = "the tokenizer's file at the chosen rate" if tokenizers else "the chosen rate"
    what = f"Each codec at the setting whose file is nearest in bytes to {matched}. "
    what += {
        "image": "The pictures are kept to the pixel. Drag the divider; drag the crops to look "
        "elsewhere.",
        "audio": "Starting one player stops the other and goes on at the same moment.",
    }[results.modality]
    title = {"image": "See it at matched bytes", "audio": "Hear it at matched bytes"}
    return section(
        "compare",
        title[results.modality],
        tag("p", what, class_="hint"),
        tag("div", id="stage"),
    )


def _details(results: Results) -> Markup:
    metrics = _terms((metric.name, metric.definition) for metric in results.metrics)
    codecs = _terms((marked(results, codec), codec.description) for codec in results.codecs)
    return section(
        "details",
        "Details",
        failures(results),
        tag("details", tag("summary", "Every setting, in numbers"), points_table(results)),
        tag("details", tag("summary", "The codecs"), codecs),
        tag("details", tag("summary", "The metrics, exactly"), metrics),
    )


def footer(results: Results) -> Markup:
    """Machine, versions, fingerprints: what it takes to get the same figures again."""
    prints = [(c.name, tag("code", c.fingerprint)) for c in results.codecs if c.fingerprint]
    return tag(
        "footer",
        tag("h2", "Made with"),
        tag(
            "div",
            _block("Machine", results.machine.items()),
            _block("Versions", results.versions.items()),
            _block("Tokenizers", prints) if prints else None,
            _block("Run", [("seed", results.seed), ("anchor", results.anchor or "none")]),
            class_="columns",
        ),
    )


def _block(title: str, terms: Iterable[tuple[Text, Text]]) -> Markup:
    return tag("div", tag("h3", title), _terms(terms))


def _terms(terms: Iterable[tuple[Text, Text]]) -> Markup:
    return tag(
        "dl",
        join(each for term, meaning in terms for each in (tag("dt", term), tag("dd", meaning))),
    )
