"""Keep Pillow's warnings about odd metadata out of the user's terminal, safely in threads."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_FILTER = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_lock = threading.Lock()
_users = 0


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Ignore warnings that Pillow's own modules raise while any thread is inside.

    ``warnings.catch_warnings`` swaps the filters of the whole process, and two threads that
    leave it out of order restore each other's. Here one narrow filter is added for as long as
    somebody needs it, and everything else in the list is left alone.
    """
    global _users
    with _lock:
        _users += 1
        if _FILTER not in warnings.filters:
            warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                with suppress(ValueError):  # somebody else replaced the list meanwhile
                    warnings.filters.remove(_FILTER)  # type: ignore[attr-defined]
