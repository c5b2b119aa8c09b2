"""What every metric is."""

from __future__ import annotations

from typing import Any, ClassVar

from numpy.typing import NDArray

Array = NDArray[Any]


class Metric:
    """A measure of how near a decoded sample is to the original.

    ``name``, ``unit``, ``higher_is_better`` and ``definition`` are for the report; ``package`` is
    the PyPI package and the module that it needs beyond vqtok's own, if any. The constructor loads
    what the metric needs: UsageError where that is absent.
    """

    name: ClassVar[str]
    definition: ClassVar[str]
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True
    package: ClassVar[tuple[str, str] | None] = None

    def __call__(self, original: Array, decoded: Array, sample_rate: int) -> float | None:
        """Images uint8 [H, W, 3], or sounds float32 [n, C] at ``sample_rate`` (0 for images).

        None where the original has no value (too small, silent); that must not depend on what the
        codec made of it.
        """
        raise NotImplementedError
