from __future__ import annotations

import pytest

from vqtok.tokenizer import AudioTokenizer


@pytest.fixture(scope="session")
def audio_tokenizer(make_audio_model) -> AudioTokenizer:
    """Hop 64 at 24 kHz, three codebooks of 32, blocks of 100 frames."""
    return AudioTokenizer(make_audio_model(), name="small", block=100)
