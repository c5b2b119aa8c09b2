"""Codes of several codebooks in one line, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from vqtok.tokens.sequences.layout import SequenceLayout

ORDERS = ("interleave", "flatten", "delay")


def arrange(layout: SequenceLayout, tokens: NDArray[Any]) -> NDArray[Any]:
    """Lines [lines, width], or [lines, width, Q] where parallel, of tokens [*dims, Q].

    A line is what ``row_end`` comes after: a row of positions, or everything where there is none.
    """
    dims, Q = tokens.shape[:-1], tokens.shape[-1]
    if layout.order == "delay":
        tokens = _delay(tokens.reshape(-1, Q), layout.delays, layout.pad)
    elif layout.order == "flatten":
        tokens = np.moveaxis(tokens, -1, 0)
    lines, width = line_shape(layout, dims)
    if layout.parallel:
        return tokens.reshape(lines, width, Q)
    return tokens.reshape(lines, width)


def restore(
    layout: SequenceLayout, lines: NDArray[Any], dims: Sequence[int]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Tokens [*dims, Q] of lines, and what stands where "delay" has no codes [any]."""
    Q = layout.num_codebooks
    nothing = lines[:0].reshape(-1)
    if layout.order == "delay":
        steps, count = lines.reshape(-1, Q), math.prod(dims)
        at = np.arange(count)[:, None] + np.array(layout.delays)
        holes = np.ones(steps.shape, bool)
        np.put_along_axis(holes, at, False, axis=0)
        return np.take_along_axis(steps, at, axis=0).reshape(*dims, Q), steps[holes]
    if layout.order == "flatten":
        return np.moveaxis(lines.reshape(Q, *dims), 0, -1), nothing
    return lines.reshape(*dims, Q), nothing


def line_shape(layout: SequenceLayout, dims: Sequence[int]) -> tuple[int, int]:
    """(lines, elements of a line); an element is a token, or a row of Q where parallel."""
    count = math.prod(dims) + max(layout.delays, default=0)
    each = 1 if layout.parallel or layout.order == "flatten" else layout.num_codebooks
    planes = layout.num_codebooks if layout.order == "flatten" else 1
    if layout.row_end is None:
        return 1, count * each * planes
    return math.prod(dims[:-1]) * planes, dims[-1] * each


def _delay(tokens: NDArray[Any], delays: Sequence[int], pad: int | None) -> NDArray[Any]:
    """Tokens [P, Q] with column q moved down by ``delays[q]``: [P + max(delays), Q]."""
    count = len(tokens)
    result = np.full((count + max(delays), len(delays)), pad, np.int64)
    for q, delay in enumerate(delays):
        result[delay : delay + count, q] = tokens[:, q]
    return result
