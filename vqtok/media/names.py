"""Names from outside made safe: they may become metadata, or files below a folder of ours."""

from __future__ import annotations

import re

MAX_PART_BYTES = 200

_NOT_A_NAME = re.compile(r"\.{0,2}|[A-Za-z]:")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def safe_name(name: str) -> str:
    """Turn any string into a relative POSIX path that stays below the folder it is joined to.

    Roots, drive letters, empty parts, ``.`` and ``..`` are dropped, backslashes count as
    slashes, control characters and undecodable bytes become ``_``, and a part longer than 200
    bytes of UTF-8 is cut. Different names may become the same one.

    >>> safe_name("/etc/../../passwd"), safe_name("C:\\\\photos\\\\a.png"), safe_name("..")
    ('etc/passwd', 'photos/a.png', 'unnamed')
    """
    parts = name.replace("\\", "/").split("/")
    return (
        "/".join(_safe_part(part) for part in parts if not _NOT_A_NAME.fullmatch(part)) or "unnamed"
    )


def _safe_part(part: str) -> str:
    part = _UNPRINTABLE.sub("_", part)
    return part.encode("utf-8")[:MAX_PART_BYTES].decode("utf-8", "ignore")
