"""Token datasets as training sequences: layouts (LAYOUT.md), vocabularies, packing.

Nothing here needs torch.
"""

from __future__ import annotations

from vqtok.tokens.sequences.codebook import CodebookTokens
from vqtok.tokens.sequences.dataset import Account, DamagedSampleWarning, TokenDataset
from vqtok.tokens.sequences.layout import SequenceLayout
from vqtok.tokens.sequences.parsing import Parsed
from vqtok.tokens.sequences.presets import PRESETS
from vqtok.tokens.sequences.size_prefix import SizePrefix
from vqtok.tokens.sequences.source import TokenSource
from vqtok.tokens.sequences.vocabulary import Segment, Vocabulary

__all__ = [
    "PRESETS",
    "Account",
    "CodebookTokens",
    "DamagedSampleWarning",
    "Parsed",
    "Segment",
    "SequenceLayout",
    "SizePrefix",
    "TokenDataset",
    "TokenSource",
    "Vocabulary",
]
