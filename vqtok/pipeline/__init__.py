"""Jobs over many files: plan, run, merge for encoding; decoding back to files.

Every step can be killed at any moment and run again: the result is the same bytes.
"""

from __future__ import annotations

from vqtok.pipeline.arrays import ForeignCodes
from vqtok.pipeline.decode import DecodeReport, decode_dataset
from vqtok.pipeline.encode import EncodeReport, encode_dataset
from vqtok.pipeline.engines import Engine, Processes
from vqtok.pipeline.plan import Plan, make_plan
from vqtok.pipeline.share import Share
from vqtok.pipeline.task import encode_task

__all__ = [
    "DecodeReport",
    "EncodeReport",
    "Engine",
    "ForeignCodes",
    "Plan",
    "Processes",
    "Share",
    "decode_dataset",
    "encode_dataset",
    "encode_task",
    "make_plan",
]
