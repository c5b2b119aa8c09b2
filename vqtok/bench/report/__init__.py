"""The report of a bench: one HTML page that holds everything it shows and asks the network for
nothing.
"""

from vqtok.bench.report.page import write_report

__all__ = ["write_report"]
