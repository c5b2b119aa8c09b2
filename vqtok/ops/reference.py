"""Plain torch versions of the native ops: the oracle of the tests and the fallback.

They run on any device and return exactly what the native ops return.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vqtok.ops import bits as numpy_bits

Lookup = Callable[[Tensor, Tensor], Tensor]

_CHUNK_ELEMENTS = 1 << 22  # of an N x K block held at a time


def nearest_by_definition(x: Tensor, codebook: Tensor) -> Tensor:
    """The definition of the lookup, evaluated literally.

    The code of a row x is the k that minimises ``sum_d (x[d] - codebook[k, d])**2`` in float64:
    inputs widened exactly, terms added by ascending d, every operation rounded on its own (no
    fused multiply-add). The lowest k wins ties. NaN counts as infinitely far, and a row that is
    infinitely far from every code has code 0.

    Args:
        x: float [N, D]
        codebook: float [K, D], K >= 1

    Returns:
        int64 [N], each in [0, K)
    """
    x, codebook = x.double(), codebook.double()
    codes = torch.empty(len(x), dtype=torch.int64, device=x.device)
    step = max(1, _CHUNK_ELEMENTS // len(codebook))
    for start in range(0, len(x), step):
        rows = x[start : start + step]
        distances = torch.zeros(len(rows), len(codebook), dtype=torch.float64, device=x.device)
        for d in range(x.shape[1]):
            difference = rows[:, d, None] - codebook[None, :, d]
            distances += difference * difference
        distances.nan_to_num_(nan=torch.inf, posinf=torch.inf)
        codes[start : start + step] = distances.argmin(dim=1)
    return codes


def nearest(x: Tensor, codebook: Tensor) -> Tensor:
    """The same codes as :func:`nearest_by_definition`, by a float64 matrix product.

    Rows whose best score is not ahead of the others by more than the rounding errors of the product
    and of the definition are decided by the definition.
    """
    wide = codebook.double()
    half = 0.5 * wide.square().sum(dim=1)
    unit = (x.shape[1] + 16) * 2.0**-52
    codes = torch.empty(len(x), dtype=torch.int64, device=x.device)
    step = max(1, _CHUNK_ELEMENTS // len(wide))
    for start in range(0, len(x), step):
        rows = x[start : start + step].double()
        scores = rows @ wide.T - half
        best, found = scores.max(dim=1)
        norm = rows.square().sum(dim=1)
        margin = 4 * unit * (norm + 2 * half.max()) + 2.0**-1000
        rivals = (scores >= (best - margin)[:, None]).sum(dim=1)
        # an overflow, a NaN or an Inf anywhere in the row leaves no certain winner
        uncertain = (rivals != 1) | ~scores.isfinite().all(dim=1) | ~norm.isfinite()
        if uncertain.any():
            found[uncertain] = nearest_by_definition(rows[uncertain], wide)
        codes[start : start + step] = found
    return codes


def unit_rows(x: Tensor) -> Tensor:
    """Rows [N, D] as unit vectors, float64; NaN for those that are zero or hold a NaN or Inf.

    Each operation is rounded on its own, squares are added by ascending d.
    """
    largest = x.abs().amax(dim=1).double()
    exponent = torch.frexp(largest).exponent
    half = exponent >> 1  # 2^-exponent itself may be out of range
    one = torch.ones_like(largest)
    scales = torch.ldexp(one, -half), torch.ldexp(one, half - exponent)
    scaled = x.double() * scales[0][:, None] * scales[1][:, None]
    squared = torch.zeros_like(largest)
    for d in range(x.shape[1]):
        squared += scaled[:, d] * scaled[:, d]
    norm = torch.where(largest.isfinite(), squared.sqrt(), torch.nan)
    return scaled / norm[:, None]  # 0 / 0 is NaN


def nearest_cosine(x: Tensor, codebook: Tensor) -> Tensor:
    """The lookup by angle; see :func:`vqtok.ops.nearest_cosine`."""
    return nearest(unit_rows(x), unit_rows(codebook))


def quantize(
    x: Tensor, codebooks: Sequence[Tensor], lookup: Lookup = nearest
) -> tuple[Tensor, Tensor]:
    """The residual lookup, a codebook at a time; see :func:`vqtok.ops.quantize`."""
    x, total = x.float(), torch.zeros((), device=x.device)
    codes: list[Tensor] = []
    for table in codebooks:
        table = table.float()
        found = lookup(x - total if codes else x, table)
        total = total + table[found] if codes else table[found]
        codes.append(found)
    return total, torch.stack(codes, dim=1)


def ema_update(x: Tensor, codes: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """Per-code counts and sums; see :func:`vqtok.ops.ema_update`."""
    counts = torch.zeros(codebook_size, dtype=torch.int64, device=x.device)
    counts.index_put_((codes,), torch.ones_like(codes), accumulate=True)
    sums = torch.zeros(codebook_size, x.shape[1], dtype=torch.float64, device=x.device)
    if x.is_cuda:  # sorts first, so that sums come out the same on every run
        sums.index_put_((codes,), x.double(), accumulate=True)
    else:
        sums.index_add_(0, codes, x.double())
    return counts, sums.to(sum_dtype(x))


def sum_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Fixed-width packing; see :func:`vqtok.ops.pack_bits`."""
    wide = codes.to(torch.int64)
    outside = (wide < 0) | (wide >= 1 << bits)
    if outside.any():
        position = int(outside.nonzero()[0])
        raise numpy_bits.misfit(position, int(wide[position]), bits)
    shifts = torch.arange(bits, device=codes.device)
    stream = ((wide[:, None] >> shifts) & 1).flatten()
    stream = torch.nn.functional.pad(stream, (0, -len(stream) % 8)).view(-1, 8)
    return (stream << torch.arange(8, device=codes.device)).sum(dim=1).to(torch.uint8)


def unpack_bits(packed: Tensor, bits: int, count: int) -> Tensor:
    """The inverse of :func:`pack_bits`."""
    octets = packed[: numpy_bits.packed_size(count, bits)].to(torch.int64)
    stream = (octets[:, None] >> torch.arange(8, device=packed.device)) & 1
    stream = stream.flatten()[: count * bits].view(count, bits)
    return (stream << torch.arange(bits, device=packed.device)).sum(dim=1)
