"""Jobs over many files: plan, run, merge for encoding; decoding back to files.

Every step can be killed at any moment and run again: the result is the same bytes.
"""

from __future__ import annotations

from vqtok.pipeline.decode import DecodeReport, decode_dataset
from vqtok.pipeline.encode import EncodeReport, encode_dataset, encode_task
from vqtok.pipeline.plan import Plan, make_plan

__all__ = [
    "DecodeReport",
    "EncodeReport",
    "Plan",
    "decode_dataset",
    "encode_dataset",
    "encode_task",
    "make_plan",
]
