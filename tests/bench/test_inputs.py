"""The samples of a bench."""

from __future__ import annotations

from pathlib import Path

import pytest

from vqtok.bench.inputs import read_sample
from vqtok.errors import DataError
from vqtok.media.sources import Source


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_what_cannot_be_read_is_named_as_in_the_listing(tmp_path: Path, modality: str) -> None:
    missing = Source("folder/gone", str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"^folder/gone: cannot be read: No such file"):
        read_sample(missing, modality, quick=False)
