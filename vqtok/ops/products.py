"""Largest dot products, as a torch operator in plain torch."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from vqtok.ops import checks

torch.library.define(
    "vqtok::largest_product",
    "(Tensor x, Tensor codebook, Tensor? bias=None, bool check=True) -> Tensor",
)
_BLOCK = 1 << 22  # products at a time
_TINY = 2.0**-62  # has a square in float32


def largest_product(
    x: Tensor, codebook: Tensor, bias: Tensor | None = None, *, check: bool = True
) -> Tensor:
    """The k that maximises ``x . codebook[k] + bias[k]``, without an N x K matrix.

    Products in float32 choose those that may be the largest, whatever the rounding; among these
    float64 decides, and the lowest k if they are equal. So codes do not depend on batch or threads.

    Args:
        x: float32, float64, bfloat16 or float16 [N, D].
        codebook: of one of these dtypes [K, D].
        bias: of one of these dtypes [K].
        check: refuse NaN and Inf. Without it a row that holds one gets code 0, and a code that
            holds one is never chosen while there is another.

    Returns:
        int64 [N], each in [0, K).

    Raises:
        ValueError: shapes, dtypes or devices that do not match, or NaN or Inf (if `check`).
    """
    found = torch.ops.vqtok.largest_product(x.detach(), codebook.detach(), bias, check)
    return cast(Tensor, found)


def _largest(x: Tensor, codebook: Tensor, bias: Tensor | None = None, check: bool = True) -> Tensor:
    checks.check_nearest(x, codebook)
    lengths, sizes = _lengths(x), _lengths(codebook)
    if check and not bool(lengths.isfinite().all() & sizes.isfinite().all()):
        checks.refuse_not_finite(x, codebook)
    added = x.new_zeros(len(codebook), dtype=torch.float64) if bias is None else bias.double()
    good = sizes.isfinite() & added.isfinite()
    # Of a sum of D products rounded in any order, and of its addition to the bias.
    exact = torch.get_float32_matmul_precision() == "highest"
    unit = (x.shape[1] + 8) * (2.0**-23 if exact else 2.0**-7)
    largest, shift = (v.masked_fill(~good, 0.0).abs().max() for v in (sizes, added))
    margin = 2 * unit * (lengths * largest + shift) + _TINY
    narrow, offset = codebook.float(), added.float().masked_fill(~good, -torch.inf)
    if not bool(good.all()):
        narrow = narrow.masked_fill(~good[:, None], 0.0)
    codes = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    step = max(1, _BLOCK // len(codebook))
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        scores = torch.addmm(offset, x[part].float(), narrow.T)
        best, codes[part] = scores.max(dim=1)
        scores.scatter_(1, codes[part, None], -torch.inf)
        limit = (best.double() - margin[part]).float()
        unsure = (scores.amax(dim=1) >= limit) | ~best.isfinite()
        rows = (unsure & lengths[part].isfinite()).nonzero()[:, 0]
        if len(rows):
            near = (scores[rows] >= limit[rows, None]) | ~best[rows, None].isfinite()
            near.scatter_(1, codes[start + rows, None], True)
            codes[start + rows] = _decide(x[part][rows], codebook, added, near & good)
    return codes.masked_fill(~lengths.isfinite(), 0)


def _lengths(rows: Tensor) -> Tensor:
    """float64 [N]: what no row is longer than, hardly more than its length; not finite as rows."""
    wide = rows if rows.dtype == torch.float64 else rows.float()
    lengths = torch.linalg.vector_norm(wide, dim=1).double()
    if not bool(lengths.isfinite().all()):  # perhaps of the squares alone
        lengths = torch.linalg.vector_norm(wide.double(), dim=1)
    # Squares may have underflown.
    longest: Tensor = lengths * (1 + 2.0**-12) + math.sqrt(rows.shape[1]) * _TINY
    return longest


def _decide(x: Tensor, codebook: Tensor, added: Tensor, near: Tensor) -> Tensor:
    """Of the codes that are near (bool [n, K]) the one with the largest product, in float64."""
    rows, codes = near.nonzero(as_tuple=True)
    step = max(1, _BLOCK // x.shape[1])
    pairs = zip(torch.split(rows, step), torch.split(codes, step), strict=True)
    values = torch.cat([(x[r].double() * codebook[k].double()).sum(1) + added[k] for r, k in pairs])
    best = values.new_full((len(x),), -torch.inf).scatter_reduce_(0, rows, values, "amax")
    wins = values == best[rows]
    first = codes.new_full((len(x),), len(codebook)).scatter_reduce_(
        0, rows[wins], codes[wins], "amin"
    )
    return first.masked_fill(first == len(codebook), 0)  # no code is good


def _fake(x: Tensor, codebook: Tensor, bias: Tensor | None = None, check: bool = True) -> Tensor:
    checks.check_nearest(x, codebook)
    return x.new_empty(x.shape[0], dtype=torch.int64)


torch.library.impl("vqtok::largest_product", "default", _largest)
torch.library.register_fake("vqtok::largest_product", _fake)
