"""The residual lookup as a torch operator: codes and quantized rows in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from vqtok.ops import checks, library, native, reference

FLOAT32_HOLDS = (torch.float32, torch.bfloat16, torch.float16)

torch.library.define(
    "vqtok::quantize", "(Tensor x, Tensor[] codebooks, bool check) -> (Tensor, Tensor)"
)


def quantize(
    x: Tensor, codebooks: Sequence[Tensor], *, check: bool = True
) -> tuple[Tensor, Tensor]:
    """Quantize rows with one codebook, or with several of which each codes what is left over.

    Codebook q looks up (:func:`vqtok.ops.nearest`) ``x - s``, where s is the sum of the rows
    chosen from the codebooks before it. Sums and differences are float32, by ascending codebook,
    each rounded: the result is bit for bit that of a loop over codebooks, but neither residuals
    nor their sums are ever whole tensors.

    The gradient of ``quantized`` passes straight through to x (Bengio et al., 2013,
    arXiv:1308.3432), and to the rows that were chosen from each codebook. Detach what should get
    none. It is a gradient of backward passes alone: ``torch.func`` and forward-mode
    differentiation do not see through the operator (torch's limit for registered gradients); under
    them write ``x + (quantized - x).detach()`` of detached inputs.

    Args:
        x: float32, bfloat16 or float16 [N, D], 1 <= D <= 65536; rows may be strided
        codebooks: Q >= 1 of the same dtypes, [K_q, D] with 1 <= K_q < 2**31
        check: refuse NaN and Inf. Without it a row that holds one has code 0 in every codebook.

    Returns:
        quantized float32 [N, D], the sum of the chosen rows; codes int64 [N, Q], each in [0, K_q)

    Raises:
        ValueError: shapes, dtypes or devices that do not match, or NaN or Inf, in the
            inputs or in what a codebook leaves (if `check`).
    """
    return cast("tuple[Tensor, Tensor]", torch.ops.vqtok.quantize(x, list(codebooks), check))


def _check(x: Tensor, codebooks: Sequence[Tensor]) -> None:
    if not codebooks:
        raise ValueError("quantize needs at least one codebook")
    for tensor in (x, *codebooks):
        if tensor.dtype not in FLOAT32_HOLDS:
            raise ValueError(f"quantize works in float32, got {tensor.dtype}: convert it first")
    for codebook in codebooks:
        checks.check_nearest(x, codebook)


def _any(x: Tensor, codebooks: Sequence[Tensor], check: bool) -> tuple[Tensor, Tensor]:
    _check(x, codebooks)
    return reference.quantize(
        x, codebooks, lambda rest, table: library.nearest(rest, table, check=check)
    )


def _cpu(x: Tensor, codebooks: Sequence[Tensor], check: bool) -> tuple[Tensor, Tensor]:
    module = native.load()
    if module is None:
        return _any(x, codebooks, check)
    _check(x, codebooks)
    rows = checks.rows(x.float())
    tables = [codebook.float().contiguous() for codebook in codebooks]
    codes = torch.empty(x.shape[0], len(tables), dtype=torch.int64)
    quantized = torch.empty(x.shape, dtype=torch.float32)
    bad_row, bad_codebook, bad_code = module.residual_cpu(
        *(rows.data_ptr(), rows.shape[0], rows.stride(0), rows.shape[1]),
        *([table.data_ptr() for table in tables], [len(table) for table in tables]),
        *(codes.data_ptr(), quantized.data_ptr(), native.num_threads(), native.isa()),
    )
    if check and bad_codebook >= 0:
        raise ValueError(f"codebooks[{bad_codebook}][{bad_code}] holds NaN or Inf")
    if check and bad_row >= 0 and bool(x[bad_row].isfinite().all()):
        raise ValueError(f"what the codebooks leave of x[{bad_row}] is too large for float32")
    if check:
        checks.refuse_bad(bad_row, -1)
    return quantized, codes


def _fake(x: Tensor, codebooks: Sequence[Tensor], check: bool) -> tuple[Tensor, Tensor]:
    _check(x, codebooks)
    codes = x.new_empty(x.shape[0], len(codebooks), dtype=torch.int64)
    return x.new_empty(x.shape, dtype=torch.float32), codes


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, codebooks, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])
    ctx.dtype = x.dtype
    ctx.tables = [(codebook.shape[0], codebook.dtype) for codebook in codebooks]


def _backward(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    (codes,) = ctx.saved_tensors
    wanted = ctx.needs_input_grad[1]
    moved = [
        library.ema_update(gradient, codes[:, q], size, check=False)[1].to(dtype)
        if wanted[q]
        else None
        for q, (size, dtype) in enumerate(ctx.tables)
    ]
    return gradient.to(ctx.dtype) if ctx.needs_input_grad[0] else None, moved, None


torch.library.impl("vqtok::quantize", "default", _any)
torch.library.impl("vqtok::quantize", "cpu", _cpu)
torch.library.register_fake("vqtok::quantize", _fake)
torch.library.register_autograd("vqtok::quantize", _backward, setup_context=_setup)
