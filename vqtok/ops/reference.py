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
        codes[start : start + step] = _distances(x[start : start + step], codebook).argmin(dim=1)
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


def nearest_k(x: Tensor, codebook: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest codes of each row; see :func:`vqtok.ops.nearest_k`."""
    step = max(1, _CHUNK_ELEMENTS // len(codebook))
    found = [_nearest_few(x[n : n + step, None], codebook, k) for n in range(0, len(x) or 1, step)]
    codes, distances = (torch.cat(parts) for parts in zip(*found, strict=True))
    return codes, distances.float()


def beam_search(x: Tensor, codebooks: Sequence[Tensor], beam: int) -> Tensor:
    """The residual lookup by beam search; see :func:`vqtok.ops.beam_search`."""
    tables = [codebook.double() for codebook in codebooks]
    step = max(1, _CHUNK_ELEMENTS // (beam * max(map(len, tables))))
    return torch.cat([_beam_of_rows(rows, tables, beam) for rows in torch.split(x.double(), step)])


def _beam_of_rows(rows: Tensor, tables: Sequence[Tensor], beam: int) -> Tensor:
    rest = rows[:, None]
    codes = torch.zeros(len(rows), 1, 0, dtype=torch.int64, device=rows.device)
    for table in tables:
        best, _ = _nearest_few(rest, table, min(beam, rest.shape[1] * len(table)))
        parent, code = best // len(table), best % len(table)
        rest = _take(rest, parent) - table[code]
        codes = torch.cat([_take(codes, parent), code[..., None]], dim=-1)
    return codes[:, 0]


def _nearest_few(groups: Tensor, codebook: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Of all members of groups [n, m, D] with all codes: the places int64 [n, keep], member K +
    code, of the nearest by ascending distance, then place; and the distances float64 [n, keep].

    A matrix product finds a few more than are kept, of which the definition chooses. It decides
    alone where those left out are not farther by more than rounding errors."""
    groups, codebook = groups.double(), codebook.double()
    size, members = len(codebook), groups.shape[1]
    square, code_square = groups.square().sum(-1, keepdim=True), codebook.square().sum(1)
    rough = (square + code_square - 2 * (groups @ codebook.T)).flatten(1)
    width = min(keep + 8, rough.shape[1])
    limit, near = rough.topk(width, dim=1, largest=False)
    near = near.sort(dim=1).values
    distances = _squared_norms(_take(groups, near // size) - codebook[near % size])
    distances, order = distances.sort(dim=1, stable=True)
    distances, places = distances[:, :keep], near.gather(1, order[:, :keep])
    margin = (groups.shape[-1] + 16) * 2.0**-50 * (square.amax((1, 2)) + code_square.max())
    certain = distances[:, -1] + margin + 2.0**-1000 < limit[:, -1]
    uncertain = ~(certain & rough.isfinite().all(dim=1))
    if uncertain.any():
        rows = groups[uncertain]
        whole = _distances(rows.flatten(0, 1), codebook).view(len(rows), members * size)
        whole, order = whole.sort(dim=1, stable=True)
        distances[uncertain], places[uncertain] = whole[:, :keep], order[:, :keep]
    return places, distances


def _distances(x: Tensor, codebook: Tensor) -> Tensor:
    """Squared distances float64 [N, K], as the definition has them."""
    total = torch.zeros(len(x), len(codebook), dtype=torch.float64, device=x.device)
    for d in range(x.shape[1]):
        difference = x[:, d, None] - codebook[:, d]
        total += difference * difference
    return total.nan_to_num_(nan=torch.inf, posinf=torch.inf)


def _squared_norms(differences: Tensor) -> Tensor:
    """Of differences [n, m, D], float64 [n, m], as the definition has them."""
    zero = differences.new_zeros(1, differences.shape[-1])
    return _distances(differences.flatten(0, 1), zero).view(differences.shape[:2])


def _take(values: Tensor, index: Tensor) -> Tensor:
    """Rows [n, b', ...] of values [n, b, ...] at index [n, b']."""
    return torch.take_along_dim(values, index[..., None].expand(*index.shape, values.shape[-1]), 1)


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
