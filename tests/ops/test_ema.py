"""Counts and sums: equal to the reference bit for bit, with a gradient."""

from __future__ import annotations

import pytest
import torch

from vqtok import ops
from vqtok.ops import native, reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "shape",
    [(0, 3, 5), (4, 0, 3), (1, 1, 1), (5000, 8, 64), (3000, 70, 300), (90, 21, 700)],
    ids=str,
)
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("isa", native.supported_isas())
def test_equals_reference(
    shape: tuple[int, int, int], dtype: torch.dtype, threads: int, isa: str
) -> None:
    n, d, k = shape
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n, d, generator=generator).to(dtype)
    codes = torch.randint(max(1, k - 3), (n,), generator=generator)  # some codes stay unused
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with native.force_isa(isa):
            counts, sums = ops.ema_update(x, codes, k)
    finally:
        torch.set_num_threads(before)
    want_counts, want_sums = reference.ema_update(x, codes, k)
    assert torch.equal(counts, want_counts)
    assert sums.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(sums, want_sums)


def test_strided_rows() -> None:
    x, codes = torch.randn(100, 12), torch.randint(6, (200,))[::2]
    want = reference.ema_update(x[:, 3:8], codes, 6)
    assert torch.equal(ops.ema_update(x[:, 3:8], codes, 6)[1], want[1])
    assert torch.equal(ops.ema_update(x.T[3:8].T, codes, 6)[1], want[1])


def test_gradient() -> None:
    x = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    codes = torch.randint(5, (9,))
    assert torch.autograd.gradcheck(lambda x: ops.ema_update(x, codes, 5)[1], (x,))


def test_wrong_arguments() -> None:
    x, codes = torch.zeros(3, 2), torch.tensor([0, 4, 1])
    with pytest.raises(ValueError, match=r"codes\[1\] is 4, outside \[0, 4\)"):
        ops.ema_update(x, codes, 4)
    with pytest.raises(ValueError, match=r"codes\[0\] is -1"):
        ops.ema_update(x, codes - 1, 4)
    with pytest.raises(ValueError, match=r"codes\[1\] is 4"):
        ops.ema_update(x, codes, 4, check=False)  # only a GPU may leave it out
    with pytest.raises(ValueError, match=r"\[3, 2\] and \[2\]"):
        ops.ema_update(x, codes[:2], 4)
    with pytest.raises(ValueError, match="codes must be int64"):
        ops.ema_update(x, codes.int(), 4)
    with pytest.raises(ValueError, match="codebook_size must be positive"):
        ops.ema_update(x, codes, 0)
