"""The lookup on a GPU gives the codes of the CPU; without one, csrc/tests emulates it."""

from __future__ import annotations

import pytest
import torch

from vqtok import ops

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "shape", [(0, 4, 8), (1, 1, 1), (1000, 8, 1025), (333, 64, 640), (70, 300, 2000)], ids=str
)
def test_same_codes_as_the_cpu(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    n, d, k = shape
    generator = torch.Generator().manual_seed(1)
    codebook = torch.randn(k, d, generator=generator)
    x = torch.randn(n, d, generator=generator)
    codebook[k // 2 :: 5] = codebook[0]
    codebook[k // 3 :: 7] = codebook[0] * (1 + 1e-7)
    x[::3] = codebook[torch.randint(k, (n,), generator=generator)][::3]
    x, codebook = x.to(dtype), codebook.to(dtype)
    codes = ops.nearest(x.cuda(), codebook.cuda())
    assert codes.is_cuda
    assert torch.equal(codes.cpu(), ops.nearest(x, codebook))


def test_bad_values() -> None:
    x, codebook = torch.randn(50, 6), torch.randn(9, 6)
    x[13, 2] = torch.nan
    with pytest.raises(ValueError, match=r"x\[13\] holds NaN or Inf"):
        ops.nearest(x.cuda(), codebook.cuda())
    codes = ops.nearest(x.cuda(), codebook.cuda(), check=False).cpu()
    assert torch.equal(codes, ops.nearest(x, codebook, check=False))


def test_follows_the_current_stream() -> None:
    x, codebook = torch.randn(2000, 16).cuda(), torch.randn(512, 16).cuda()
    want = ops.nearest(x, codebook)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)
        moved = x + 0
        codes = ops.nearest(moved, codebook, check=False)
    stream.synchronize()
    assert torch.equal(codes, want)


@pytest.mark.parametrize("name", ["ema_update", "pack_bits", "unpack_bits"])
def test_other_ops(name: str) -> None:
    x, codes = torch.randn(500, 5), torch.randint(40, (500,))
    arguments = {
        "ema_update": (x, codes, 40),
        "pack_bits": (codes, 6),
        "unpack_bits": (ops.pack_bits(codes, 6), 6, 500),
    }[name]
    op = getattr(ops, name)
    on_gpu = op(*(a.cuda() if isinstance(a, torch.Tensor) else a for a in arguments))
    on_cpu = op(*arguments)
    if name != "ema_update":
        assert torch.equal(on_gpu.cpu(), on_cpu)
        return
    assert torch.equal(on_gpu[0].cpu(), on_cpu[0])
    torch.testing.assert_close(on_gpu[1].cpu(), on_cpu[1])
