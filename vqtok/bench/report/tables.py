"""The tables of the report: BD, speed, codebooks, failures, every setting."""

from __future__ import annotations

from vqtok.bench.report.answer import scrolled
from vqtok.bench.report.marks import marked
from vqtok.bench.report.numbers import fixed, metric_decimals, plural, rounded, size
from vqtok.bench.report.pictures import codebook_map
from vqtok.bench.report.tags import Markup, Text, join, section, tag
from vqtok.bench.report.winners import contenders
from vqtok.bench.results import BD, CodebookUse, Codec, Metric, Point, Results

NONE = "–"  # noqa: RUF001


def bd_table(results: Results) -> Markup | None:
    """Bjontegaard deltas: a row per codec, a column per metric, refusals as numbered notes."""
    if not results.bd:
        return None
    found = {(bd.codec, bd.metric): bd for bd in results.bd}
    notes = list(dict.fromkeys(bd.note for bd in results.bd if bd.note))
    metrics = [m for m in results.metrics if any(bd.metric == m.name for bd in results.bd)]
    codecs = [c for c in results.codecs if any(bd.codec == c.name for bd in results.bd)]
    head = (tag("th", metric.name, tag("small", metric.unit), scope="col") for metric in metrics)
    rows = (
        tag(
            "tr",
            tag("th", marked(results, codec), scope="row"),
            *(_bd_cell(found.get((codec.name, m.name)), m, results, notes) for m in metrics),
        )
        for codec in codecs
    )
    table = tag(
        "table",
        tag("caption", f"Bjontegaard deltas against {results.anchor}"),
        tag("thead", tag("tr", tag("td", ""), *head)),
        tag("tbody", join(rows)),
    )
    hint = (
        f"Bits more (+) or fewer (−) than {results.anchor} at equal quality; below it, the "  # noqa: RUF001
        "change of the metric at equal rate. Nothing is extrapolated: where curves do not overlap "
        "enough there is a note instead."
    )
    items = (tag("li", note, id=f"note-{i}") for i, note in enumerate(notes, 1))
    listed = tag("ol", join(items), class_="notes") if notes else None
    return section(
        "bd",
        f"Bits saved against {results.anchor}",
        tag("p", hint, class_="hint"),
        scrolled("BD", table),
        listed,
    )


def _bd_cell(bd: BD | None, metric: Metric, results: Results, notes: list[str]) -> Markup:
    if bd is None:
        return tag("td", NONE, class_="none")
    rate = quality = None
    if bd.rate_percent is not None:
        verdict = "better" if bd.rate_percent < 0 else "worse" if bd.rate_percent > 0 else None
        rate = tag("span", fixed(bd.rate_percent, 1, sign=True), " %", class_=verdict)
    if bd.quality is not None:
        decimals = metric_decimals(results)[metric.name]
        quality = tag("small", fixed(bd.quality, decimals, sign=True), " ", metric.unit)
    note = None
    if bd.note:
        number = notes.index(bd.note) + 1
        note = tag("small", tag("a", f"note {number}", href=f"#note-{number}"))
    empty = None if rate or quality or note else NONE
    return tag("td", rate, quality, empty, note)


def speed_table(results: Results) -> Markup | None:
    """Speed of coding and decoding and the memory it takes, over all settings of a codec."""
    rows = [row for codec in results.codecs if (row := _speed_row(results, codec))]
    if not rows:
        return None
    unit = "megapixels per second" if results.modality == "image" else "seconds of sound per second"
    heads = ("Encode", "Decode", "Peak memory")
    table = tag(
        "table",
        tag("caption", f"Speed in {unit}, over all settings; most memory that any setting took"),
        tag("thead", tag("tr", tag("td", ""), *(tag("th", head, scope="col") for head in heads))),
        tag("tbody", join(rows)),
    )
    return section("speed", "Speed and memory", scrolled("Speed", table))


def _speed_row(results: Results, codec: Codec) -> Markup | None:
    samples = [results.samples[index] for index in results.common]
    if results.modality == "image":
        work = sum((sample.height or 0) * (sample.width or 0) for sample in samples) / 1e6
    else:
        work = sum(sample.seconds or 0 for sample in samples)
    encode = [p.encode_seconds for p in codec.points if p.encode_seconds is not None]
    decode = [p.decode_seconds for p in codec.points if p.decode_seconds is not None]
    memory = [p.peak_memory_bytes for p in codec.points if p.peak_memory_bytes is not None]
    if not (encode or decode or memory):
        return None

    def speed(seconds: list[float]) -> str:
        return rounded(work * len(seconds) / sum(seconds)) if sum(seconds) else NONE

    return tag(
        "tr",
        tag("th", marked(results, codec), scope="row"),
        tag("td", speed(encode)),
        tag("td", speed(decode)),
        tag("td", size(max(memory)) if memory else NONE),
    )


def codebooks(results: Results) -> Markup | None:
    """For each tokenizer its codebooks as maps, and the bits that a code takes."""
    parts = [part for codec in contenders(results) if (part := _codebooks_of(results, codec))]
    if not parts:
        return None
    hint = (
        "A square per code, in the order of the codebook: the brighter, the more often it occurs, "
        "on a logarithmic scale; a dot is a code that never does. Perplexity: how many equally "
        "frequent codes would be as hard to guess."
    )
    return section("codebooks", "How the codebooks are used", tag("p", hint, class_="hint"), *parts)


def _codebooks_of(results: Results, codec: Codec) -> Markup | None:
    """The codebooks of the setting that has most."""
    point = max(codec.points, key=lambda each: len(each.codebooks), default=None)
    if point is None or not point.codebooks:
        return None
    maps = (_codebook(codec.name, i, use) for i, use in enumerate(point.codebooks, 1))
    return tag(
        "div",
        tag("h3", marked(results, codec)),
        tag("div", join(maps), class_="maps"),
        _bits_table(codec),
        class_="tokenizer",
    )


def _codebook(codec: str, number: int, use: CodebookUse) -> Markup:
    facts = (
        f"{use.size:,} codes, {fixed(100 * use.usage, 1)}% occur, "
        f"perplexity {rounded(use.perplexity)}"
    )
    alt = f"Usage map of codebook {number} of {codec}: {facts}"
    image = tag("img", src=codebook_map(use.counts), alt=alt, class_="map", loading="lazy")
    return tag("figure", image, tag("figcaption", tag("strong", f"Codebook {number}"), " ", facts))


def _bits_table(codec: Codec) -> Markup | None:
    levels = {"fixed": "fixed length", "order0": "order-0 entropy", "entropy": "entropy coded"}
    found: dict[int, dict[str, float]] = {}
    for point in codec.points:
        if point.bits_per_code:
            found.setdefault(len(point.codebooks), {}).update(point.bits_per_code)
    if not found:
        return None
    rows = (
        tag(
            "tr",
            tag("th", plural(count, "codebook"), scope="row"),
            *(tag("td", _or_none(bits.get(level), 2)) for level in levels),
        )
        for count, bits in sorted(found.items())
    )
    heads = (tag("th", title, scope="col") for title in levels.values())
    table = tag(
        "table",
        tag("caption", "Bits per code"),
        tag("thead", tag("tr", tag("td", ""), *heads)),
        tag("tbody", join(rows)),
    )
    return scrolled("Bits per code", table)


def failures(results: Results) -> Markup:
    """Each file that a codec failed on, with its settings and the reason."""
    title = tag("h3", "Failures", id="failures")
    if not results.failed:
        every = "Every codec coded and decoded every sample at every setting."
        return tag("div", title, tag("p", every))
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for failure in results.failed:
        key = (failure.sample, failure.codec, failure.error)
        grouped.setdefault(key, []).append(failure.setting)
    rows = (
        tag(
            "tr",
            tag("th", tag("bdi", sample), scope="row"),
            tag("td", tag("bdi", codec)),
            tag("td", ", ".join(dict.fromkeys(settings))),
            tag("td", error, class_="error"),
        )
        for (sample, codec, error), settings in sorted(grouped.items())
    )
    heads = ("Sample", "Codec", "Settings", "Error")
    table = tag(
        "table",
        tag("thead", tag("tr", *(tag("th", head, scope="col") for head in heads))),
        tag("tbody", join(rows)),
        class_="texts",
    )
    said = (
        f"{plural(len(results.failed), 'failure')}. Means of all codecs are over the other "
        f"{len(results.common)} of {len(results.samples)} samples."
    )
    return tag("div", title, tag("p", said), scrolled("Failures", table, class_="tall"))


def points_table(results: Results) -> Markup:
    """Rate, bytes and every metric's mean and standard error, a row per setting."""
    heads: list[Text] = [
        tag("th", title, scope="col", class_=kind)
        for title, kind in (
            ("Codec", None),
            ("Setting", "text"),
            (results.rate_unit, None),
            ("Bytes", None),
        )
    ]
    heads += [tag("th", m.name, tag("small", m.unit), scope="col") for m in results.metrics]
    decimals = metric_decimals(results)
    rows = (
        tag(
            "tr",
            tag("th", marked(results, codec), scope="row"),
            tag("td", point.setting, class_="text"),
            tag("td", rounded(point.rate)),
            tag("td", _mean_bytes(results, point)),
            *(_mean(point, metric, decimals[metric.name]) for metric in results.metrics),
        )
        for codec in results.codecs
        for point in codec.points
    )
    table = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", join(rows)))
    return scrolled("Every setting", table, class_="tall")


def _mean(point: Point, metric: Metric, decimals: int) -> Markup:
    error = point.deviation.get(metric.name)
    shown = tag("small", f"± {fixed(error, decimals)}") if error is not None else None
    return tag("td", _or_none(point.mean.get(metric.name), decimals), shown)


def _mean_bytes(results: Results, point: Point) -> str:
    sizes = [point.bytes[index] for index in results.common] if point.bytes else []
    known = [each for each in sizes if each is not None]
    return f"{sum(known) / len(known):,.0f}" if known else NONE


def _or_none(value: float | None, decimals: int) -> str:
    return NONE if value is None else fixed(value, decimals)
