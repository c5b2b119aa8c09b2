"""Token datasets to the formats that training code reads. One file per target, no torch.

Only ``parquet`` and ``hf`` need a library (pyarrow, extra ``export``).
"""

from __future__ import annotations

from vqtok.exporters.export import EXPORTERS, ExportReport, export_dataset
from vqtok.exporters.layouts import find_layout
from vqtok.exporters.records import Record, Spec

__all__ = ["EXPORTERS", "ExportReport", "Record", "Spec", "export_dataset", "find_layout"]
