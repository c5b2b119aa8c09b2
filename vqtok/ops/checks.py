"""What the torch operators refuse, shared by kernels and fakes, and in which words."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtok.ops import bits as numpy_bits

MAX_DIM = 65536  # the error bounds of the float32 scan are derived for at most this many terms
DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}


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
    if tensor.dtype not in DTYPES:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        raise ValueError(f"{name} is {tensor.dtype}; supported are {known}")


def check_ema(x: Tensor, codes: Tensor, codebook_size: int) -> None:
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


def check_integers(codes: Tensor) -> None:
    if codes.ndim != 1 or codes.dtype.is_floating_point or codes.dtype.is_complex:
        raise ValueError(f"codes must be integers [N], got {codes.dtype} {list(codes.shape)}")


def check_packed(packed: Tensor, bits: int, count: int) -> None:
    numpy_bits.check_bits(bits)
    if packed.ndim != 1 or packed.dtype != torch.uint8:
        raise ValueError(f"packed must be uint8 [M], got {packed.dtype} {list(packed.shape)}")
    numpy_bits.check_packed_size(packed.shape[0], bits, count)


def rows(matrix: Tensor) -> Tensor:
    """The matrix itself if its rows are contiguous, otherwise a copy."""
    return matrix if matrix.stride(1) == 1 or matrix.shape[1] == 1 else matrix.contiguous()


def refuse_bad(bad_row: int, bad_code: int) -> None:
    if bad_code >= 0:
        raise ValueError(f"codebook[{bad_code}] holds NaN or Inf")
    if bad_row >= 0:
        raise ValueError(f"x[{bad_row}] holds NaN or Inf (check=False gives such rows code 0)")


def refuse_not_finite(x: Tensor, codebook: Tensor) -> None:
    bad_code, bad_row = (_first(~tensor.isfinite().all(dim=1)) for tensor in (codebook, x))
    refuse_bad(bad_row, bad_code)


def _first(flags: Tensor) -> int:
    """The position of the first True in bool [N], or -1."""
    return int(flags.nonzero()[0]) if flags.any() else -1


def outside(codes: Tensor, position: int, codebook_size: int) -> ValueError:
    return ValueError(f"codes[{position}] is {int(codes[position])}, outside [0, {codebook_size})")
