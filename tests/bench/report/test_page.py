"""The report as a file: nothing from outside, nothing unescaped, what the results say."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqtok.bench.report import write_report
from vqtok.bench.report.numbers import fixed, rounded, short, size
from vqtok.bench.report.page import SCRIPTS
from vqtok.bench.report.tags import escape, tag


class Outline(HTMLParser):
    """Elements, attributes and texts of a page."""

    def __init__(self, page):
        super().__init__()
        self.elements = []
        self.texts = []
        self.open = []
        self.feed(page)

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in {"meta", "link", "img", "input", "br"}:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, text):
        self.texts.append((self.open[-1] if self.open else "", text))

    def all(self, name):
        return [attributes for each, attributes in self.elements if each == name]

    def inside(self, name):
        return "".join(text for element, text in self.texts if element == name)


@pytest.fixture(scope="module", params=["image", "audio"])
def page(request, toys, tmp_path_factory):
    """Results of a hostile toy with a failure, and their page."""
    results, media = toys.toy(request.param, fails=0)
    path = tmp_path_factory.mktemp("report") / "index.html"
    write_report(results, media, path)
    text = path.read_text("utf-8")
    return results, text, Outline(text)


def island(outline):
    (text,) = [text for element, text in outline.texts if element == "script"][:1]
    return json.loads(text)


def test_nothing_comes_from_outside(page):
    _, text, outline = page
    for _, attributes in outline.elements:
        for key in ("src", "href", "srcset", "data", "action", "poster", "style"):
            value = attributes.get(key)
            assert value is None or re.match(r"data:|#", value), (key, value)
        assert not [key for key in attributes if key.startswith("on")]
    code = re.sub(r"data:[a-z]+/[a-z]+;base64,[A-Za-z0-9+/=]+", "", text)
    assert set(re.findall(r"\w+://[^'\"<\s]*", code)) == {"http://www.w3.org/2000/svg"}
    for word in (
        "@import",
        "url(",
        "fetch(",
        "XMLHttpRequest",
        "WebSocket",
        "import(",
        "innerHTML",
    ):
        assert word not in code, word


def test_the_policy_allows_the_script_and_the_style_of_the_page_only(page):
    _, _, outline = page
    (policy,) = [m["content"] for m in outline.all("meta") if "http-equiv" in m]
    scripts = [text for element, text in outline.texts if element == "script"]
    assert len(outline.all("script")) == len(scripts) == 2
    for kind, text in (("script", scripts[1]), ("style", outline.inside("style"))):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_hostile_names_stay_texts(page, toys):
    results, text, outline = page
    assert "<script>alert" not in text
    assert not [a for a in outline.all("img") if a.get("src") == "x"]
    assert outline.inside("h1") == results.data
    assert "ValueError: <b>too odd</b>" in [text for _, text in outline.texts]
    assert not outline.all("b")
    assert not outline.all("i")
    names = [sample["name"] for sample in island(outline)["compare"]["samples"]]
    assert names == [results.samples[index].name for index in results.common]
    assert toys.HOSTILE in names


@given(st.text(st.characters(exclude_categories=[])))
def test_any_text_survives_escaping(text):
    outline = Outline(tag("p", text, title=text))
    printable = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    printable = printable.replace("\r\n", "\n").replace("\r", "\n")
    attributes = outline.elements[0][1]
    assert len(outline.elements) == 1
    assert attributes["title"].replace("\r\n", "\n").replace("\r", "\n") == printable
    assert outline.inside("p").replace("\r\n", "\n").replace("\r", "\n") == printable
    assert escape(escape(text)) == escape(text)


def test_structure(page):
    results, _, outline = page
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert not outline.open
    for attributes in outline.all("a"):
        assert attributes["href"].removeprefix("#") in ids
    for attributes in outline.all("img"):
        assert attributes["alt"]
    for attributes in outline.all("use"):
        assert attributes["href"].removeprefix("#") in ids
    assert len([a for a in outline.all("figure") if a.get("class") == "plot"]) == len(
        results.metrics
    )


def test_every_codec_metric_and_failure_is_named(page):
    results, _, outline = page
    said = " ".join(text for _, text in outline.texts)
    for words in (
        [codec.name for codec in results.codecs],
        [metric.definition for metric in results.metrics],
        [results.samples[0].name, "All means are over 2 of 3 samples.", "one & only", "0.0"],
        [results.bd[1].note, "note 1", "external", "perplexity", "ab" * 32],
    ):
        for word in words:
            assert word in said


def test_the_island_holds_the_means(page):
    results, _, outline = page
    data = island(outline)
    for codec, drawn in zip(results.codecs, data["codecs"], strict=True):
        assert (drawn["name"], drawn["kind"]) == (codec.name, codec.kind)
        for point, shown in zip(codec.points, drawn["points"], strict=True):
            assert shown["mean"] == point.mean
            assert shown["error"] == point.deviation
            assert shown["rate"] == {name: point.rate_of(name) for name in point.mean}


def test_every_script_is_in(page):
    from importlib.resources import files

    _, text, _ = page
    static = files("vqtok.bench.report") / "static"
    assert {each.name for each in static.iterdir()} == {*SCRIPTS, "page.html", "page.css"}
    for name in SCRIPTS:
        assert (static / name).read_text("utf-8") in text


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_results_of_a_bench(modality, examples, tmp_path):
    results = getattr(examples, f"{modality}_results")()
    write_report(results, examples.ExampleMedia(results), tmp_path / "index.html")
    outline = Outline((tmp_path / "index.html").read_text("utf-8"))
    said = {text for _, text in outline.texts}
    assert {failure.error for failure in results.failed} <= said
    assert set(results.notes) <= said


def test_the_same_results_make_the_same_bytes(toys, tmp_path):
    for name in ("one.html", "two.html"):
        write_report(*toys.toy(), tmp_path / name)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_results_without_media_or_overlap(toys, tmp_path):
    """No common sample, no metric that anybody has: still a page that says what failed."""
    from dataclasses import replace

    results, media = toys.toy(names=["one", "two"])
    bare = [
        replace(
            codec,
            points=tuple(
                replace(point, mean={}, mean_rate={}, deviation={}) for point in codec.points
            ),
        )
        for codec in results.codecs
    ]
    empty = replace(results, common=(), codecs=tuple(bare), bd=(), anchor=None, quick=True)
    write_report(empty, media, tmp_path / "index.html")
    outline = Outline((tmp_path / "index.html").read_text("utf-8"))
    assert "compare" not in {attributes.get("id") for _, attributes in outline.elements}
    assert any("A quick run" in text for _, text in outline.texts)


def test_numbers():
    minus = "\N{MINUS SIGN}"
    assert fixed(-31.25, 1) == f"{minus}31.2"
    assert fixed(-0.001, 2) == "0.00"
    assert fixed(2.3, 2, sign=True) == "+2.30"
    assert fixed(12345.6, 0) == "12,346"
    rows = {0.08591: "0.0859", 0.9996: "1.00", 9.994: "9.99", 123.4: "123", 0: "0", 4567: "4,570"}
    assert {value: rounded(value) for value in rows} == rows
    assert [short(value) for value in (0.3, 1.25, 24, 100, 0.0859)] == [
        "0.3",
        "1.25",
        "24",
        "100",
        "0.0859",
    ]
    assert [size(count) for count in (812, 45_230, 1.21e9)] == ["812 B", "45.2 kB", "1.21 GB"]


@given(st.floats(1e-5, 1e6))
def test_rounded_is_within_half_a_unit_of_the_third_digit(value):
    shown = float(rounded(value).replace(",", ""))
    assert abs(shown - value) <= max(0.00501 * value, 5.01e-7)
    assert float(short(value).replace(",", "")) == shown
    assert np.isfinite(shown)
