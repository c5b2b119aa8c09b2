"""Puts the page together: one file, scripts and styles inside, media as data URIs."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from vqtok.bench.report import sections
from vqtok.bench.report.compare import BUDGET, comparison
from vqtok.bench.report.numbers import metric_decimals
from vqtok.bench.report.tags import Markup, escape
from vqtok.bench.results import Media, Results
from vqtok.files import atomic_write

SCRIPTS = ("dom.js", "theme.js", "plots.js", "slider.js", "players.js", "compare.js")


def write_report(results: Results, media: Media, path: Path, *, budget: int = BUDGET) -> None:
    """Write the report as one HTML file, which a browser shows without any network.

    Args:
        results: what to show.
        media: the originals of the common samples and what the codecs made of them.
        path: the file, replaced if it exists.
        budget: most characters that pictures and sounds may take together; it decides how many
            samples can be looked at.

    Raises:
        VqtokError: the file cannot be written.
    """
    page = report_page(results, comparison(results, media, budget))
    with atomic_write(path, durable=False) as file:
        file.write(page.encode())


def report_page(results: Results, compared: dict[str, Any]) -> str:
    """The page, given what :func:`comparison` chose to show."""
    style = _static("page.css")
    script = "(() => {\n'use strict';\n" + "\n".join(map(_static, SCRIPTS)) + "})();\n"
    parts = {
        "policy": _policy(style, script),
        "title": escape(f"{results.data}: vqtok bench"),
        "style": Markup(style),
        "markers": sections.markers(),
        "main": sections.main(results, has_media=bool(compared["samples"])),
        "footer": sections.footer(results),
        "data": Markup(_island({**_curves(results), "compare": compared})),
        "script": Markup(script),
    }
    return re.sub(r"<!--(\w+)-->", lambda found: parts[found[1]], _static("page.html"))


def _static(name: str) -> str:
    return (files("vqtok.bench.report") / "static" / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """What a browser may load and run: these styles, this script, data URIs."""

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return (
        f"default-src 'none'; style-src 'sha256-{digest(style)}'; "
        f"script-src 'sha256-{digest(script)}'; img-src data:; media-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _island(value: dict[str, Any]) -> str:
    """JSON that may stand in a script element, whatever its texts are."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _curves(results: Results) -> dict[str, Any]:
    """What the plots and the comparison draw."""
    decimals = metric_decimals(results)
    return {
        "modality": results.modality,
        "unit": results.rate_unit,
        "metrics": [
            {
                "name": metric.name,
                "unit": metric.unit,
                "higher": metric.higher_is_better,
                "decimals": decimals[metric.name],
            }
            for metric in results.metrics
        ],
        "codecs": [
            {
                "name": codec.name,
                "kind": codec.kind,
                "points": [
                    {
                        "setting": point.setting,
                        "rate": {name: point.rate_of(name) for name in point.mean},
                        "mean": point.mean,
                        "error": point.deviation,
                    }
                    for point in codec.points
                ],
            }
            for codec in results.codecs
        ],
    }
