"""Listing and reading files loads no model code."""

from __future__ import annotations

import subprocess
import sys


def test_no_torch_and_a_light_package():
    code = (
        "import sys, vqtok.media; assert 'PIL' not in sys.modules and 'numpy' not in sys.modules;"
        "vqtok.media.list_sources; assert 'PIL' not in sys.modules;"
        "vqtok.media.read_image; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
