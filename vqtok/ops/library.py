"""The torch face of the ops: torch.library schemas, kernels, fakes and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from vqtok.ops import bits as numpy_bits
from vqtok.ops import checks, native, reference
from vqtok.ops.checks import DTYPES

torch.library.define("vqtok::nearest", "(Tensor x, Tensor codebook, bool check=True) -> Tensor")
torch.library.define(
    "vqtok::nearest_cosine", "(Tensor x, Tensor codebook, bool check=True) -> Tensor"
)
torch.library.define(
    "vqtok::ema_update",
    "(Tensor x, Tensor codes, SymInt codebook_size, bool check=True) -> (Tensor, Tensor)",
)
torch.library.define("vqtok::pack_bits", "(Tensor codes, int bits) -> Tensor")
torch.library.define("vqtok::unpack_bits", "(Tensor packed, int bits, SymInt count) -> Tensor")


def nearest(x: Tensor, codebook: Tensor, *, check: bool = True) -> Tensor:
    """The nearest code of each row: exact, without an N x K matrix.

    The code of a row x is the k that minimises ``sum_d (x[d] - codebook[k, d])**2``, evaluated in
    float64 on the exact values of the inputs, terms added by ascending d, every operation rounded
    on its own; the lowest k wins ties. So the codes are the same for every instruction set, thread
    count, batch size and position in the batch. No gradient flows through the codes.

    Args:
        x: float32, float64, bfloat16 or float16 [N, D], 1 <= D <= 65536; rows may be strided
        codebook: one of the same dtypes (not necessarily that of x) [K, D], 1 <= K < 2**31
        check: refuse NaN and Inf. Without it a row that holds one gets code 0, a code that holds
            one is never chosen while another has a finite distance, and a GPU need not wait.

    Returns:
        int64 [N], each in [0, K)

    Raises:
        ValueError: shapes, dtypes or devices that do not match, or NaN or Inf (if `check`).
    """
    return cast(Tensor, torch.ops.vqtok.nearest(x, codebook, check))


def nearest_cosine(x: Tensor, codebook: Tensor, *, check: bool = True) -> Tensor:
    """The code of each row that has the largest cosine with it: :func:`nearest` of unit vectors.

    The unit vector of v is ``v / |v|`` in float64, of the exact values of v: scaled by a power of
    two until its largest element lies in [0.5, 1), so that no size of v matters; ``|v|^2`` is
    added up by ascending d, every operation rounded. Normalise nothing before; lengths of rows and
    of codes are free. A row of zeros has no direction and gets code 0; a code of zeros is never
    chosen while another is not zero.

    Arguments, result and errors are those of :func:`nearest`.
    """
    return cast(Tensor, torch.ops.vqtok.nearest_cosine(x, codebook, check))


def ema_update(
    x: Tensor, codes: Tensor, codebook_size: int, *, check: bool = True
) -> tuple[Tensor, Tensor]:
    """How many rows chose each code, and their sum.

    Sums are added up in float64 by ascending row and then rounded, so they do not depend on the
    number of threads. The gradient of the sums flows back to x.

    Args:
        x: float32, float64, bfloat16 or float16 [N, D]
        codes: int64 [N], each in [0, codebook_size)
        codebook_size: K
        check: refuse codes outside the codebook. Without it a GPU need not wait: rows with such a
            code count for nothing there. On the CPU they are refused in any case.

    Returns:
        counts int64 [K], and sums [K, D], float64 for float64 x, otherwise float32

    Raises:
        ValueError: shapes or dtypes that do not match, or a code outside the codebook (which cannot
            be seen while a CUDA graph is captured: such rows then count for nothing).
    """
    found = torch.ops.vqtok.ema_update(x, codes, codebook_size, check)
    return cast("tuple[Tensor, Tensor]", found)


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Packs integers [N], each in [0, 2**bits), into uint8 [ceil(N * bits / 8)].

    The layout is that of :mod:`vqtok.ops.bits`.

    Raises:
        ValueError: wrong shape, dtype or width, or a code that does not fit.
    """
    return cast(Tensor, torch.ops.vqtok.pack_bits(codes, bits))


def unpack_bits(packed: Tensor, bits: int, count: int) -> Tensor:
    """Reads `count` codes of `bits` bits from uint8 [M] as int64 [count].

    Raises:
        ValueError: wrong shape, dtype, width or count, or too few bytes.
    """
    return cast(Tensor, torch.ops.vqtok.unpack_bits(packed, bits, count))


# --- Kernels --------------------------------------------------------------------------------------


def _nearest_any(x: Tensor, codebook: Tensor, check: bool = True) -> Tensor:
    checks.check_nearest(x, codebook)
    if check:
        checks.refuse_not_finite(x, codebook)
    return reference.nearest(x, codebook)


def _cosine_any(x: Tensor, codebook: Tensor, check: bool = True) -> Tensor:
    checks.check_nearest(x, codebook)
    if check:
        checks.refuse_not_finite(x, codebook)
    return reference.nearest_cosine(x, codebook)


def _cosine_cuda(x: Tensor, codebook: Tensor, check: bool = True) -> Tensor:
    checks.check_nearest(x, codebook)
    if check:
        checks.refuse_not_finite(x, codebook)
    return _nearest_cuda(reference.unit_rows(x), reference.unit_rows(codebook), False)


def _nearest_cpu(x: Tensor, codebook: Tensor, check: bool = True) -> Tensor:
    module = native.load()
    if module is None:
        return _nearest_any(x, codebook, check)
    return _lookup_cpu(module.nearest_cpu, x, codebook, check)


def _cosine_cpu(x: Tensor, codebook: Tensor, check: bool = True) -> Tensor:
    module = native.load()
    if module is None:
        return _cosine_any(x, codebook, check)
    return _lookup_cpu(module.nearest_cosine_cpu, x, codebook, check)


def address(matrix: Tensor) -> tuple[int, int, int, int]:
    """What the native module takes for a matrix with contiguous rows, but for its dim."""
    return matrix.data_ptr(), DTYPES[matrix.dtype], matrix.shape[0], matrix.stride(0)


def _lookup_cpu(lookup: Callable[..., Any], x: Tensor, codebook: Tensor, check: bool) -> Tensor:
    checks.check_nearest(x, codebook)
    x, codebook = checks.rows(x), checks.rows(codebook)
    codes = torch.empty(x.shape[0], dtype=torch.int64)
    bad_row, bad_code = lookup(
        *address(x),
        *address(codebook),
        *(x.shape[1], codes.data_ptr(), native.num_threads(), native.isa()),
    )
    if check:
        checks.refuse_bad(bad_row, bad_code)
    return codes


def _nearest_cuda(x: Tensor, codebook: Tensor, check: bool = True) -> Tensor:
    module = native.load()
    if module is None or not module.with_cuda:
        return _nearest_any(x, codebook, check)
    checks.check_nearest(x, codebook)
    x, codebook = checks.rows(x), checks.rows(codebook)
    codes = torch.empty(x.shape[0], dtype=torch.int64, device=x.device)
    size = module.nearest_cuda_workspace(x.shape[0], codebook.shape[0], x.shape[1])
    workspace = torch.empty(size, dtype=torch.uint8, device=x.device)
    module.nearest_cuda(
        *address(x),
        *address(codebook),
        *(x.shape[1], codes.data_ptr(), workspace.data_ptr()),
        *(x.device.index, torch.cuda.current_stream(x.device).cuda_stream),
    )
    if check:  # waits for the result
        bad_code, bad_row = workspace[:16].view(torch.int64).tolist()
        none = module.no_bad_index
        checks.refuse_bad(-1 if bad_row == none else bad_row, -1 if bad_code == none else bad_code)
    return codes


def _ema_any(
    x: Tensor, codes: Tensor, codebook_size: int, check: bool = True
) -> tuple[Tensor, Tensor]:
    checks.check_ema(x, codes, codebook_size)
    outside = (codes < 0) | (codes >= codebook_size)
    if outside.any():
        raise checks.outside(codes, int(outside.nonzero()[0]), codebook_size)
    return reference.ema_update(x, codes, codebook_size)


def _ema_cpu(
    x: Tensor, codes: Tensor, codebook_size: int, check: bool = True
) -> tuple[Tensor, Tensor]:
    module = native.load()
    if module is None:
        return _ema_any(x, codes, codebook_size, check)
    checks.check_ema(x, codes, codebook_size)
    x, codes = checks.rows(x), codes.contiguous()
    counts = torch.empty(codebook_size, dtype=torch.int64)
    sums = torch.empty(codebook_size, x.shape[1], dtype=reference.sum_dtype(x))
    bad = module.ema_update_cpu(
        *(x.data_ptr(), DTYPES[x.dtype], x.shape[0], x.shape[1], x.stride(0), codes.data_ptr()),
        *(codebook_size, counts.data_ptr(), sums.data_ptr(), native.num_threads(), native.isa()),
    )
    if bad >= 0:
        raise checks.outside(codes, bad, codebook_size)
    return counts, sums


def _ema_cuda(
    x: Tensor, codes: Tensor, codebook_size: int, check: bool = True
) -> tuple[Tensor, Tensor]:
    module = native.load()
    if module is None or not module.with_cuda:
        return _ema_any(x, codes, codebook_size, check)
    checks.check_ema(x, codes, codebook_size)
    x, codes = checks.rows(x), codes.contiguous()
    counts = torch.empty(codebook_size, dtype=torch.int64, device=x.device)
    shape = (codebook_size, x.shape[1])
    sums = torch.empty(shape, dtype=reference.sum_dtype(x), device=x.device)
    size = module.ema_cuda_workspace(x.shape[0], codebook_size)
    workspace = torch.empty(size, dtype=torch.uint8, device=x.device)
    module.ema_update_cuda(
        *(x.data_ptr(), DTYPES[x.dtype], x.shape[0], x.shape[1], x.stride(0), codes.data_ptr()),
        *(codebook_size, counts.data_ptr(), sums.data_ptr(), workspace.data_ptr()),
        *(x.device.index, torch.cuda.current_stream(x.device).cuda_stream),
    )
    if check and not torch.cuda.is_current_stream_capturing():  # waits for the result
        bad = int(workspace[:8].view(torch.int64))
        if bad != module.no_bad_index:
            raise checks.outside(codes, bad, codebook_size)
    return counts, sums


def _pack_any(codes: Tensor, bits: int) -> Tensor:
    checks.check_integers(codes)
    numpy_bits.check_bits(bits)
    return reference.pack_bits(codes, bits)


def _pack_cpu(codes: Tensor, bits: int) -> Tensor:
    checks.check_integers(codes)
    return torch.from_numpy(numpy_bits.pack(codes.numpy(), bits))


def _unpack_any(packed: Tensor, bits: int, count: int) -> Tensor:
    checks.check_packed(packed, bits, count)
    return reference.unpack_bits(packed, bits, count)


def _unpack_cpu(packed: Tensor, bits: int, count: int) -> Tensor:
    checks.check_packed(packed, bits, count)
    return torch.from_numpy(numpy_bits.unpack(packed.numpy(), bits, count))


# --- Shapes without data, for torch.compile -------------------------------------------------------


def _nearest_fake(x: Tensor, codebook: Tensor, check: bool = True) -> Tensor:
    checks.check_nearest(x, codebook)
    return x.new_empty(x.shape[0], dtype=torch.int64)


def _ema_fake(
    x: Tensor, codes: Tensor, codebook_size: int, check: bool = True
) -> tuple[Tensor, Tensor]:
    checks.check_ema(x, codes, codebook_size)
    counts = x.new_empty(codebook_size, dtype=torch.int64)
    return counts, x.new_empty(codebook_size, x.shape[1], dtype=reference.sum_dtype(x))


def _pack_fake(codes: Tensor, bits: int) -> Tensor:
    checks.check_integers(codes)
    numpy_bits.check_bits(bits)
    return codes.new_empty(numpy_bits.packed_size(codes.shape[0], bits), dtype=torch.uint8)


def _unpack_fake(packed: Tensor, bits: int, count: int) -> Tensor:
    checks.check_packed(packed, bits, count)
    return packed.new_empty(count, dtype=torch.int64)


# --- Gradients (codes and bits are integers and need none) ----------------------------------------


def _ema_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, codes, *_ = inputs
    ctx.save_for_backward(codes)
    ctx.dtype = x.dtype


def _ema_backward(
    ctx: Any, grad_counts: Tensor | None, grad_sums: Tensor
) -> tuple[Tensor, None, None, None]:
    (codes,) = ctx.saved_tensors
    return grad_sums[codes].to(ctx.dtype), None, None, None


_KERNELS: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    "nearest": (_nearest_any, _nearest_cpu, _nearest_fake),
    "nearest_cosine": (_cosine_any, _cosine_cpu, _nearest_fake),
    "ema_update": (_ema_any, _ema_cpu, _ema_fake),
    "pack_bits": (_pack_any, _pack_cpu, _pack_fake),
    "unpack_bits": (_unpack_any, _unpack_cpu, _unpack_fake),
}
for _name, (_any, _cpu, _fake) in _KERNELS.items():
    torch.library.impl(f"vqtok::{_name}", "default", _any)
    torch.library.impl(f"vqtok::{_name}", "cpu", _cpu)
    torch.library.register_fake(f"vqtok::{_name}", _fake)
torch.library.impl("vqtok::nearest", "cuda", _nearest_cuda)
torch.library.impl("vqtok::nearest_cosine", "cuda", _cosine_cuda)
torch.library.impl("vqtok::ema_update", "cuda", _ema_cuda)
torch.library.register_autograd("vqtok::ema_update", _ema_backward, setup_context=_ema_setup)
