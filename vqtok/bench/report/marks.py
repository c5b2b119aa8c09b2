"""The mark of a codec, a shape in a colour, by its place among the codecs.

Eight colours (page.css) and seven shapes: no two of the first 56 codecs look alike, and neighbours
differ in both.
"""

from __future__ import annotations

from vqtok.bench.report.tags import Markup, join, tag
from vqtok.bench.results import Codec, Results

COLOURS = 8
_SHAPES = (
    "M6 0A6 6 0 1 1 -6 0A6 6 0 1 1 6 0Z",  # circle
    "M-5.3 -5.3H5.3V5.3H-5.3Z",  # square
    "M0 -6.5L6.5 5.2H-6.5Z",  # triangle
    "M0 -7.2L7.2 0L0 7.2L-7.2 0Z",  # diamond
    "M-2 -6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",  # cross
    "M0 6.5L6.5 -5.2H-6.5Z",  # triangle, point down
    "M0 -7.5L1.9 -2.4L7.1 -2.3L3 1L4.4 6.1L0 3.2L-4.4 6.1L-3 1L-7.1 -2.3L-1.9 -2.4Z",  # star
)


def symbols() -> Markup:
    """The shapes, for use elements to point at."""
    shapes = (
        tag(
            "symbol", tag("path", d=path), id=f"mark-{i}", viewBox="-9 -9 18 18", overflow="visible"
        )
        for i, path in enumerate(_SHAPES)
    )
    return tag("svg", join(shapes), width=0, height=0, aria_hidden="true", class_="symbols")


def colour_class(place: int) -> str:
    """The class that sets the colour of the codec at a place."""
    return f"codec-{place % COLOURS}"


def mark(place: int, kind: str) -> Markup:
    """The mark of the codec at a place; external ones are hollow."""
    use = tag("use", href=f"#mark-{place % len(_SHAPES)}", x=-9, y=-9, width=18, height=18)
    return tag(
        "svg",
        use,
        class_=f"mark {colour_class(place)} {kind}",
        viewBox="-9 -9 18 18",
        aria_hidden="true",
    )


def marked(results: Results, codec: Codec | str) -> Markup:
    """Mark and name of a codec; external ones are called so."""
    names = [each.name for each in results.codecs]
    if isinstance(codec, str):
        codec = results.codecs[names.index(codec)]
    label = tag("bdi", codec.name, class_="name")
    external = tag("small", "external", class_="external-label") if codec.kind == "external" else ""
    return tag("span", mark(names.index(codec.name), codec.kind), label, external, class_="codec")
