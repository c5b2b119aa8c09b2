"""The nearest few codes, and residual lookup by beam search, as torch operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from vqtok.ops import checks, library, native, reference

torch.library.define(
    "vqtok::nearest_k",
    "(Tensor x, Tensor codebook, SymInt k, bool check=True) -> (Tensor, Tensor)",
)
torch.library.define(
    "vqtok::beam_search",
    "(Tensor x, Tensor[] codebooks, int beam, bool check=True) -> Tensor",
)


def nearest_k(x: Tensor, codebook: Tensor, k: int, *, check: bool = True) -> tuple[Tensor, Tensor]:
    """The k nearest codes of each row, nearest first: exact, without an N x K matrix.

    Distances are those that define :func:`vqtok.ops.nearest`, in float64; ties go to the lowest
    code, so the first column is the result of :func:`vqtok.ops.nearest`. The same on every
    instruction set, thread count and batch. No gradient flows through the result.

    On a GPU this runs as plain torch in float64, with an N x K matrix in pieces.

    Args:
        x: float32, float64, bfloat16 or float16 [N, D], 1 <= D <= 65536; rows may be strided
        codebook: one of the same dtypes (not necessarily that of x) [K, D], 1 <= K < 2**31
        k: how many, 1 to K
        check: refuse NaN and Inf. Without it a code that holds one, or any code for a row that
            does, is infinitely far, and so comes last, by ascending code.

    Returns:
        codes int64 [N, k], each in [0, K); squared distances float32 [N, k], rounded from float64

    Raises:
        ValueError: shapes, dtypes or devices that do not match, k outside 1 to K, or NaN or Inf (if
            `check`).
    """
    found = torch.ops.vqtok.nearest_k(x.detach(), codebook.detach(), k, check)
    return cast("tuple[Tensor, Tensor]", found)


def beam_search(x: Tensor, codebooks: Sequence[Tensor], beam: int, *, check: bool = True) -> Tensor:
    """Codes of a residual quantizer by beam search: a closer sum than one codebook at a time finds.

    After each codebook the `beam` best sums of one code from each codebook so far are kept. What a
    sum leaves of a row is float64: the row, less the chosen codes by ascending codebook, each
    difference rounded; its squares are added by ascending d. Ties go to what comes from the better
    sum before, then to the lowest code. The same on every instruction set, thread count and batch.
    A beam of 1 is the greedy search (:func:`vqtok.ops.quantize`, but for its float32 sums).

    On a GPU this runs as plain torch.

    Args:
        x: float32, float64, bfloat16 or float16 [N, D], 1 <= D <= 65536; rows may be strided
        codebooks: Q >= 1 of the same dtypes, [K_q, D] with 1 <= K_q < 2**31
        beam: how many sums are kept, at least 1
        check: refuse NaN and Inf. Without it a row that holds one has code 0 in every codebook.

    Returns:
        int64 [N, Q], each in [0, K_q)

    Raises:
        ValueError: shapes, dtypes or devices that do not match, a beam below 1, or NaN or Inf (if
            `check`).
    """
    tables = [codebook.detach() for codebook in codebooks]
    return cast(Tensor, torch.ops.vqtok.beam_search(x.detach(), tables, beam, check))


def _check_k(x: Tensor, codebook: Tensor, k: int) -> None:
    checks.check_nearest(x, codebook)
    if not 1 <= k <= codebook.shape[0]:
        raise ValueError(f"k must be 1 to the codebook's size {codebook.shape[0]}, got {k}")


def _check_beam(x: Tensor, codebooks: Sequence[Tensor], beam: int) -> None:
    if not codebooks:
        raise ValueError("beam_search needs at least one codebook")
    if not 1 <= beam < 1 << 20:
        raise ValueError(f"beam must be at least 1 and below 2**20, not {beam}")
    for codebook in codebooks:
        checks.check_nearest(x, codebook)


def _nearest_k_any(
    x: Tensor, codebook: Tensor, k: int, check: bool = True
) -> tuple[Tensor, Tensor]:
    _check_k(x, codebook, k)
    if check:
        checks.refuse_not_finite(x, codebook)
    return reference.nearest_k(x, codebook, k)


def _nearest_k_cpu(
    x: Tensor, codebook: Tensor, k: int, check: bool = True
) -> tuple[Tensor, Tensor]:
    module = native.load()
    if module is None:
        return _nearest_k_any(x, codebook, k, check)
    _check_k(x, codebook, k)
    x, codebook = checks.rows(x), checks.rows(codebook)
    codes = torch.empty(x.shape[0], k, dtype=torch.int64)
    distances = torch.empty(x.shape[0], k, dtype=torch.float32)
    bad_row, bad_code = module.nearest_few_cpu(
        *library.address(x),
        *(*library.address(codebook), x.shape[1]),
        *(k, codes.data_ptr(), distances.data_ptr(), native.num_threads(), native.isa()),
    )
    if check:
        checks.refuse_bad(bad_row, bad_code)
    return codes, distances


def _nearest_k_fake(
    x: Tensor, codebook: Tensor, k: int, check: bool = True
) -> tuple[Tensor, Tensor]:
    _check_k(x, codebook, k)
    codes = x.new_empty(x.shape[0], k, dtype=torch.int64)
    return codes, x.new_empty(codes.shape, dtype=torch.float32)


def _beam_any(x: Tensor, codebooks: Sequence[Tensor], beam: int, check: bool = True) -> Tensor:
    _check_beam(x, codebooks, beam)
    if check:
        for index, codebook in enumerate(codebooks):
            finite = codebook.isfinite().all(dim=1)
            if not finite.all():
                raise _bad_code(index, int((~finite).nonzero()[0]))
        checks.refuse_not_finite(x, x[:0])
    return reference.beam_search(x, codebooks, beam)


def _beam_cpu(x: Tensor, codebooks: Sequence[Tensor], beam: int, check: bool = True) -> Tensor:
    module = native.load()
    if module is None:
        return _beam_any(x, codebooks, beam, check)
    _check_beam(x, codebooks, beam)
    rows = checks.rows(x)
    tables = [codebook.contiguous() for codebook in codebooks]
    codes = torch.empty(x.shape[0], len(tables), dtype=torch.int64)
    bad_row, bad_codebook, bad_code = module.beam_search_cpu(
        *(*library.address(rows), rows.shape[1]),
        [(table.data_ptr(), checks.DTYPES[table.dtype], len(table)) for table in tables],
        *(beam, codes.data_ptr(), native.num_threads(), native.isa()),
    )
    if check and bad_codebook >= 0:
        raise _bad_code(bad_codebook, bad_code)
    if check:
        checks.refuse_bad(bad_row, -1)
    return codes


def _bad_code(codebook: int, code: int) -> ValueError:
    return ValueError(f"codebooks[{codebook}][{code}] holds NaN or Inf")


def _beam_fake(x: Tensor, codebooks: Sequence[Tensor], beam: int, check: bool = True) -> Tensor:
    _check_beam(x, codebooks, beam)
    return x.new_empty(x.shape[0], len(codebooks), dtype=torch.int64)


torch.library.impl("vqtok::nearest_k", "default", _nearest_k_any)
torch.library.impl("vqtok::nearest_k", "cpu", _nearest_k_cpu)
torch.library.register_fake("vqtok::nearest_k", _nearest_k_fake)
torch.library.impl("vqtok::beam_search", "default", _beam_any)
torch.library.impl("vqtok::beam_search", "cpu", _beam_cpu)
torch.library.register_fake("vqtok::beam_search", _beam_fake)
