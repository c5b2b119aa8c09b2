"""The torch face of the ops: torch.library schemas, kernels, fakes and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from vqtok.ops import bits as numpy_bits
from vqtok.ops import native, reference

MAX_DIM = 65536  # the error bounds of the float32 scan are derived for at most this many terms
_DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}

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


# --- Checks, shared by kernels and fakes ----------------------------------------------------------


def check_nearest(x: Tensor, codebook: Tensor) -> None:
    if x.ndim != 2 or codebook.ndim != 2:
        raise ValueError(f"nearest needs x [N, D] and codebook [K, D], got {_shapes(x, codebook)}")
    dim, codebook_dim, size = x.shape[1], codebook.shape[1], codebook.shape[0]
    if dim != codebook_dim:
        raise ValueError(
            f"x has dim {dim}, codebook has dim {codebook_dim}: {_shapes(x, codebook)}"
        )
    if not 1 <= dim <= MAX_DIM:
        raise ValueError(f"nearest takes a dim of 1 to {MAX_DIM}, got {_shapes(x, codebook)}")
    if not 1 <= size < 2**31:
        raise ValueError(f"the codebook needs 1 to 2**31-1 codes, got {_shapes(x, codebook)}")
    _check_float("x", x)
    _check_float("codebook", codebook)
    if x.device != codebook.device:
        raise ValueError(f"x is on {x.device}, codebook on {codebook.device}")


def _shapes(x: Tensor, codebook: Tensor) -> str:
    return f"x {list(x.shape)} and codebook {list(codebook.shape)}"


def _check_float(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in _DTYPES:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
        raise ValueError(f"{name} is {tensor.dtype}; supported are {known}")


def _check_ema(x: Tensor, codes: Tensor, codebook_size: int) -> None:
    _check_float("x", x)
    if x.ndim != 2 or codes.ndim != 1 or x.shape[0] != codes.shape[0]:
        raise ValueError(
            f"ema_update needs x [N, D] and codes [N], got {list(x.shape)} and {list(codes.shape)}"
        )
    if codes.dtype != torch.int64:
        raise ValueError(f"codes must be int64, got {codes.dtype}")
    if codebook_size < 1:
        raise ValueError(f"codebook_size must be positive, got {codebook_size}")
    if x.device != codes.device:
        raise ValueError(f"x is on {x.device}, codes on {codes.device}")


def _check_integers(codes: Tensor) -> None:
    if codes.ndim != 1 or codes.dtype.is_floating_point or codes.dtype.is_complex:
        raise ValueError(f"codes must be integers [N], got {codes.dtype} {list(codes.shape)}")


def _check_packed(packed: Tensor, bits: int, count: int) -> None:
    numpy_bits.check_bits(bits)
    if packed.ndim != 1 or packed.dtype != torch.uint8:
        raise ValueError(f"packed must be uint8 [M], got {packed.dtype} {list(packed.shape)}")
    numpy_bits.check_packed_size(packed.shape[0], bits, count)


# --- Kernels --------------------------------------------------------------------------------------


def rows(matrix: Tensor) -> Tensor:
    """The matrix itself if its rows are contiguous, otherwise a copy."""
    return matrix if matrix.stride(1) == 1 or matrix.shape[1] == 1 else matrix.contiguous()


def refuse_bad(bad_row: int, bad_code: int) -> None:
    if bad_code >= 0:
        raise ValueError(f"codebook[{bad_code}] holds NaN or Inf")
    if bad_row >= 0:
        raise ValueError(f"x[{bad_row}] holds NaN or Inf (check=False gives such rows code 0)")


def _refuse_not_finite(x: Tensor, codebook: Tensor) -> None:
    bad_code, bad_row = (_first(~tensor.isfinite().all(dim=1)) for tensor in (codebook, x))
    refuse_bad(bad_row, bad_code)


def _first(flags: Tensor) -> int:
    """The position of the first True in bool [N], or -1."""
    return int(flags.nonzero()[0]) if flags.any() else -1


def _nearest_any(x: Tensor, codebook: Tensor, check: bool = True) -> Tensor:
    check_nearest(x, codebook)
    if check:
        _refuse_not_finite(x, codebook)
    return reference.nearest(x, codebook)


def _cosine_any(x: Tensor, codebook: Tensor, check: bool = True) -> Tensor:
    check_nearest(x, codebook)
    if check:
        _refuse_not_finite(x, codebook)
    return reference.nearest_cosine(x, codebook)


def _cosine_cuda(x: Tensor, codebook: Tensor, check: bool = True) -> Tensor:
    check_nearest(x, codebook)
    if check:
        _refuse_not_finite(x, codebook)
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


def _lookup_cpu(lookup: Callable[..., Any], x: Tensor, codebook: Tensor, check: bool) -> Tensor:
    check_nearest(x, codebook)
    x, codebook = rows(x), rows(codebook)
    codes = torch.empty(x.shape[0], dtype=torch.int64)
    bad_row, bad_code = lookup(
        *(x.data_ptr(), _DTYPES[x.dtype], x.shape[0], x.stride(0)),
        *(codebook.data_ptr(), _DTYPES[codebook.dtype], codebook.shape[0], codebook.stride(0)),
        *(x.shape[1], codes.data_ptr(), native.num_threads(), native.isa()),
    )
    if check:
        refuse_bad(bad_row, bad_code)
    return codes


def _nearest_cuda(x: Tensor, codebook: Tensor, check: bool = True) -> Tensor:
    module = native.load()
    if module is None or not module.with_cuda:
        return _nearest_any(x, codebook, check)
    check_nearest(x, codebook)
    x, codebook = rows(x), rows(codebook)
    codes = torch.empty(x.shape[0], dtype=torch.int64, device=x.device)
    size = module.nearest_cuda_workspace(x.shape[0], codebook.shape[0], x.shape[1])
    workspace = torch.empty(size, dtype=torch.uint8, device=x.device)
    module.nearest_cuda(
        *(x.data_ptr(), _DTYPES[x.dtype], x.shape[0], x.stride(0)),
        *(codebook.data_ptr(), _DTYPES[codebook.dtype], codebook.shape[0], codebook.stride(0)),
        *(x.shape[1], codes.data_ptr(), workspace.data_ptr()),
        *(x.device.index, torch.cuda.current_stream(x.device).cuda_stream),
    )
    if check:  # waits for the result
        bad_code, bad_row = workspace[:16].view(torch.int64).tolist()
        none = module.no_bad_index
        refuse_bad(-1 if bad_row == none else bad_row, -1 if bad_code == none else bad_code)
    return codes


def _ema_any(
    x: Tensor, codes: Tensor, codebook_size: int, check: bool = True
) -> tuple[Tensor, Tensor]:
    _check_ema(x, codes, codebook_size)
    outside = (codes < 0) | (codes >= codebook_size)
    if outside.any():
        raise _outside(codes, int(outside.nonzero()[0]), codebook_size)
    return reference.ema_update(x, codes, codebook_size)


def _ema_cpu(
    x: Tensor, codes: Tensor, codebook_size: int, check: bool = True
) -> tuple[Tensor, Tensor]:
    module = native.load()
    if module is None:
        return _ema_any(x, codes, codebook_size, check)
    _check_ema(x, codes, codebook_size)
    x, codes = rows(x), codes.contiguous()
    counts = torch.empty(codebook_size, dtype=torch.int64)
    sums = torch.empty(codebook_size, x.shape[1], dtype=reference.sum_dtype(x))
    bad = module.ema_update_cpu(
        *(x.data_ptr(), _DTYPES[x.dtype], x.shape[0], x.shape[1], x.stride(0), codes.data_ptr()),
        *(codebook_size, counts.data_ptr(), sums.data_ptr(), native.num_threads(), native.isa()),
    )
    if bad >= 0:
        raise _outside(codes, bad, codebook_size)
    return counts, sums


def _ema_cuda(
    x: Tensor, codes: Tensor, codebook_size: int, check: bool = True
) -> tuple[Tensor, Tensor]:
    module = native.load()
    if module is None or not module.with_cuda:
        return _ema_any(x, codes, codebook_size, check)
    _check_ema(x, codes, codebook_size)
    x, codes = rows(x), codes.contiguous()
    counts = torch.empty(codebook_size, dtype=torch.int64, device=x.device)
    shape = (codebook_size, x.shape[1])
    sums = torch.empty(shape, dtype=reference.sum_dtype(x), device=x.device)
    size = module.ema_cuda_workspace(x.shape[0], codebook_size)
    workspace = torch.empty(size, dtype=torch.uint8, device=x.device)
    module.ema_update_cuda(
        *(x.data_ptr(), _DTYPES[x.dtype], x.shape[0], x.shape[1], x.stride(0), codes.data_ptr()),
        *(codebook_size, counts.data_ptr(), sums.data_ptr(), workspace.data_ptr()),
        *(x.device.index, torch.cuda.current_stream(x.device).cuda_stream),
    )
    if check and not torch.cuda.is_current_stream_capturing():  # waits for the result
        bad = int(workspace[:8].view(torch.int64))
        if bad != module.no_bad_index:
            raise _outside(codes, bad, codebook_size)
    return counts, sums


def _outside(codes: Tensor, position: int, codebook_size: int) -> ValueError:
    return ValueError(f"codes[{position}] is {int(codes[position])}, outside [0, {codebook_size})")


def _pack_any(codes: Tensor, bits: int) -> Tensor:
    _check_integers(codes)
    numpy_bits.check_bits(bits)
    return reference.pack_bits(codes, bits)


def _pack_cpu(codes: Tensor, bits: int) -> Tensor:
    _check_integers(codes)
    return torch.from_numpy(numpy_bits.pack(codes.numpy(), bits))


def _unpack_any(packed: Tensor, bits: int, count: int) -> Tensor:
    _check_packed(packed, bits, count)
    return reference.unpack_bits(packed, bits, count)


def _unpack_cpu(packed: Tensor, bits: int, count: int) -> Tensor:
    _check_packed(packed, bits, count)
    return torch.from_numpy(numpy_bits.unpack(packed.numpy(), bits, count))


# --- Shapes without data, for torch.compile -------------------------------------------------------


def _nearest_fake(x: Tensor, codebook: Tensor, check: bool = True) -> Tensor:
    check_nearest(x, codebook)
    return x.new_empty(x.shape[0], dtype=torch.int64)


def _ema_fake(
    x: Tensor, codes: Tensor, codebook_size: int, check: bool = True
) -> tuple[Tensor, Tensor]:
    _check_ema(x, codes, codebook_size)
    counts = x.new_empty(codebook_size, dtype=torch.int64)
    return counts, x.new_empty(codebook_size, x.shape[1], dtype=reference.sum_dtype(x))


def _pack_fake(codes: Tensor, bits: int) -> Tensor:
    _check_integers(codes)
    numpy_bits.check_bits(bits)
    return codes.new_empty(numpy_bits.packed_size(codes.shape[0], bits), dtype=torch.uint8)


def _unpack_fake(packed: Tensor, bits: int, count: int) -> Tensor:
    _check_packed(packed, bits, count)
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
