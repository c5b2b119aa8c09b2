"""Token datasets: immutable safetensors shards and a manifest. FORMAT.md is the definition.

Reading and writing need numpy only.
"""

from __future__ import annotations

from vqtok.tokens.header import Header
from vqtok.tokens.manifest import Manifest, ShardInfo, read_manifest, write_manifest
from vqtok.tokens.prior import Prior
from vqtok.tokens.reader import TokenReader
from vqtok.tokens.shard import ShardReader
from vqtok.tokens.statistics import Statistics, collect_statistics
from vqtok.tokens.verify import Problem, verify
from vqtok.tokens.writer import Sample, write_shard

__all__ = [
    "Header",
    "Manifest",
    "Prior",
    "Problem",
    "Sample",
    "ShardInfo",
    "ShardReader",
    "Statistics",
    "TokenReader",
    "collect_statistics",
    "read_manifest",
    "verify",
    "write_manifest",
    "write_shard",
]
