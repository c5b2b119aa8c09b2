"""``python -m vqtok`` is the program ``vqtok``."""

from __future__ import annotations

import sys

from vqtok.cli import main

if __name__ == "__main__":
    sys.exit(main())
