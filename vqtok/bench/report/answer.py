"""The first screen: who wins at which rate."""

from __future__ import annotations

from collections import Counter

from vqtok.bench.report.marks import colour_class, marked
from vqtok.bench.report.numbers import fixed, metric_decimals, short
from vqtok.bench.report.tags import Markup, join, section, tag
from vqtok.bench.report.winners import Verdict, contenders, rates_to_ask, tokenizer_rates, verdict
from vqtok.bench.results import Codec, Metric, Results


def answer(results: Results) -> Markup | None:
    """How often each codec is best, and the best codec for every metric and rate."""
    rates = rates_to_ask(results)
    verdicts = {
        (metric.name, rate): verdict(results, metric, rate)
        for metric in results.metrics
        for rate in rates
    }
    if not any(verdicts.values()):
        return None
    rule = (
        "Read off each codec's measured curve, never beyond its ends. “Close” codecs are "
        "within two standard errors of the best, sample by sample, and count as best too."
    )
    ranked = contenders(results)
    if any(codec.kind == "tokenizer" and codec not in ranked for codec in results.codecs):
        rule += " Of a tokenizer's packings the smallest is ranked."
    if any(codec.kind == "external" for codec in results.codecs):
        rule += " External curves are not ranked."
    return section(
        "answer",
        "Who wins at which rate",
        _wins(results, [found for found in verdicts.values() if found and found.contested]),
        _matrix(results, rates, verdicts),
        tag("p", rule, class_="hint"),
    )


def _wins(results: Results, verdicts: list[Verdict]) -> Markup | None:
    """A bar per codec: in how many of the contested cells it is best."""
    if not verdicts:
        return None
    wins = Counter(standing.codec for found in verdicts for standing in (found.best, *found.tied))
    order = sorted(contenders(results), key=lambda codec: -wins[codec.name])
    rows = (
        tag(
            "li",
            marked(results, codec),
            _bar(results, codec, wins[codec.name] / len(verdicts)),
            tag("span", str(wins[codec.name]), class_="count"),
        )
        for codec in order
    )
    title = f"Best, or close to it, in so many of the {len(verdicts)} cells with a rival"
    return tag("div", tag("p", title, class_="hint"), tag("ol", join(rows)), class_="wins")


def _bar(results: Results, codec: Codec, fraction: float) -> Markup:
    rect = tag("rect", width=f"{100 * fraction:.1f}%", height="100%", rx=2)
    colour = colour_class(results.codecs.index(codec))
    return tag("svg", rect, class_=f"meter {colour}", aria_hidden="true")


def _matrix(
    results: Results, rates: list[float], verdicts: dict[tuple[str, float], Verdict | None]
) -> Markup:
    own = tokenizer_rates(results)
    heads = (
        tag(
            "th",
            short(rate),
            " ",
            tag("small", results.rate_unit),
            scope="col",
            class_="own" if rate in own else None,
        )
        for rate in rates
    )
    rows = (
        tag(
            "tr",
            tag("th", metric.name, tag("small", _better(metric)), scope="row"),
            *(_cell(results, metric, verdicts[metric.name, rate]) for rate in rates),
        )
        for metric in results.metrics
    )
    table = tag(
        "table",
        tag("caption", "The best codec by each metric at each rate"),
        tag("thead", tag("tr", tag("td", ""), *heads)),
        tag("tbody", join(rows)),
    )
    return scrolled("Winners", table, class_="matrix")


def scrolled(label: str, table: Markup, *, class_: str = "") -> Markup:
    """A table that scrolls by itself on a narrow screen, by keyboard too."""
    return tag(
        "div", table, class_=f"scroll {class_}".strip(), role="region", tabindex=0, aria_label=label
    )


def _better(metric: Metric) -> str:
    arrow = "↑" if metric.higher_is_better else "↓"
    return f"{metric.unit} {arrow}".strip()


def _cell(results: Results, metric: Metric, found: Verdict | None) -> Markup:
    if found is None:
        return tag("td", "–", class_="none")  # noqa: RUF001
    decimals = metric_decimals(results)[metric.name]
    note = None
    if not found.contested:
        note = "no rival at this rate"
    elif found.next is not None:
        ahead = abs(found.best.mean - found.next.mean)
        word = "above" if metric.higher_is_better else "below"
        note = f"{fixed(ahead, decimals)} {word} {found.next.codec}"
    close = [marked(results, standing.codec) for standing in found.tied]
    return tag(
        "td",
        marked(results, found.best.codec),
        tag("span", fixed(found.best.mean, decimals), class_="value"),
        tag("small", "close: ", join(close), class_="close") if close else None,
        tag("small", note) if note else None,
    )
