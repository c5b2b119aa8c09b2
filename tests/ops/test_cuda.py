"""The ops on a GPU give what they give on the CPU; without a GPU, csrc/tests emulates one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vqtok import ops

pytestmark = pytest.mark.cuda

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SHAPES = [  # N, D, K: few and many dimensions, rows and codes in one tile and in many
    (0, 4, 8),
    (1, 1, 1),
    (9000, 3, 17),
    (1000, 8, 1025),
    (70, 16, 30000),
    (7, 17, 5),
    (5000, 32, 512),
    (333, 64, 640),
    (40, 100, 9000),
    (70, 300, 2000),
    (5, 4096, 130),
]


def near_ties(n: int, d: int, k: int) -> tuple[Tensor, Tensor]:
    """Rows [N, D], a third of them on codes, and codes [K, D] with duplicates and near ones."""
    generator = torch.Generator().manual_seed(n + 7 * d + 31 * k)
    codebook = torch.randn(k, d, generator=generator)
    x = torch.randn(n, d, generator=generator)
    first = codebook[0].clone()
    codebook[k // 2 :: 5] = first
    codebook[k // 3 :: 7] = first * (1 + 1e-7)
    x[::3] = codebook[torch.randint(k, (n,), generator=generator)][::3]
    return x, codebook


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("lookup", [ops.nearest, ops.nearest_cosine])
def test_same_codes_as_the_cpu(
    lookup: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    x, codebook = (t.to(dtype) for t in near_ties(*shape))
    codes = lookup(x.cuda(), codebook.cuda())
    assert codes.is_cuda
    assert torch.equal(codes.cpu(), lookup(x, codebook))
    assert torch.equal(codes, lookup(x.cuda(), codebook.cuda())), "another run"


def test_few_codes_and_beams_are_those_of_the_cpu() -> None:
    x, codebook = near_ties(200, 24, 300)
    for got, want in zip(
        ops.nearest_k(x.cuda(), codebook.cuda(), 5), ops.nearest_k(x, codebook, 5), strict=True
    ):
        assert torch.equal(got.cpu(), want)
    codes = ops.beam_search(x.cuda(), [codebook.cuda(), codebook.cuda()], 3)
    assert torch.equal(codes.cpu(), ops.beam_search(x, [codebook, codebook], 3))


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e-19, 1e18, 1e30])
@pytest.mark.parametrize("dim", [8, 48])
def test_extreme_scales(scale: float, dim: int) -> None:
    x, codebook = (scale * t for t in near_ties(500, dim, 300))
    codes = ops.nearest(x.cuda(), codebook.cuda(), check=False)
    assert torch.equal(codes.cpu(), ops.nearest(x, codebook, check=False))


def test_rows_that_lie_apart_or_unaligned() -> None:
    x, codebook = near_ties(200, 49, 60)
    on_gpu, table = x.cuda(), codebook.cuda()
    for columns in (slice(0, 48), slice(1, 49), slice(4, 24), slice(2, 8)):
        want = ops.nearest(x[:, columns], codebook[:, columns])
        assert torch.equal(ops.nearest(on_gpu[:, columns], table[:, columns]).cpu(), want)
        assert torch.equal(ops.nearest(on_gpu[::2, columns], table[:, columns]).cpu(), want[::2])


@pytest.mark.parametrize("dim", [6, 40])
def test_bad_values(dim: int) -> None:
    x, codebook = torch.randn(50, dim), torch.randn(9, dim)
    x[13, 2], x[40, 0] = torch.nan, -torch.inf
    with pytest.raises(ValueError, match=r"x\[13\] holds NaN or Inf"):
        ops.nearest(x.cuda(), codebook.cuda())
    codebook[4, 1] = torch.inf
    with pytest.raises(ValueError, match=r"codebook\[4\] holds NaN or Inf"):
        ops.nearest(x.cuda(), codebook.cuda())
    codes = ops.nearest(x.cuda(), codebook.cuda(), check=False).cpu()
    assert torch.equal(codes, ops.nearest(x, codebook, check=False))


@pytest.mark.parametrize("dtype", DTYPES[:1] + DTYPES[2:])
@pytest.mark.parametrize("dim", [8, 64])
def test_residual_lookup_and_its_gradients(dim: int, dtype: torch.dtype) -> None:
    x = near_ties(300, dim, 100)[0].to(dtype)
    tables = [near_ties(1, dim, size)[1].to(dtype) for size in (100, 64, 7)]
    weights = torch.randn(300, dim)
    results = []
    for device in ("cpu", "cuda"):
        leaves = [t.to(device).requires_grad_() for t in (x, *tables)]
        quantized, codes = ops.quantize(leaves[0], leaves[1:])
        (quantized * weights.to(device)).sum().backward()
        gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
        results.append([t.detach().cpu() for t in (quantized, codes, *gradients)])
    assert len(results[0]) == 6
    for on_cpu, on_gpu in zip(*results, strict=True):
        assert torch.equal(on_gpu, on_cpu)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(0, 3, 5), (1, 1, 1), (5000, 8, 64), (3000, 70, 300), (200, 5, 40000)], ids=str
)
def test_ema_update_has_the_bits_of_the_cpu(
    shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    n, d, k = shape
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n, d + 2, generator=generator).to(dtype)[:, 1:-1]
    codes = torch.randint(k, (n,), generator=generator)
    codes[: n // 2] = 0
    counts, sums = ops.ema_update(x.cuda(), codes.cuda(), k)
    want_counts, want_sums = ops.ema_update(x, codes, k)
    assert torch.equal(counts.cpu(), want_counts)
    assert torch.equal(sums.cpu(), want_sums)


def test_ema_update_refuses_codes_outside() -> None:
    x, codes = torch.zeros(400, 2).cuda(), torch.zeros(400, dtype=torch.int64).cuda()
    codes[300], codes[320] = 4, -1
    with pytest.raises(ValueError, match=r"codes\[300\] is 4, outside \[0, 4\)"):
        ops.ema_update(x, codes, 4)
    counts, _ = ops.ema_update(x, codes, 4, check=False)
    assert counts.tolist() == [398, 0, 0, 0]


def test_packing() -> None:
    codes = torch.randint(64, (501,))
    packed = ops.pack_bits(codes.cuda(), 6)
    assert torch.equal(packed.cpu(), ops.pack_bits(codes, 6))
    assert torch.equal(ops.unpack_bits(packed, 6, 501).cpu(), codes)


def test_operators_keep_torchs_rules() -> None:
    x, codebook = (t.cuda() for t in near_ties(30, 6, 9))
    codes = ops.nearest(x, codebook)
    for op, arguments in (
        (torch.ops.vqtok.nearest.default, (x, codebook)),
        (torch.ops.vqtok.ema_update.default, (x, codes, 9)),
    ):
        assert set(torch.library.opcheck(op, arguments).values()) == {"SUCCESS"}


def look_up_and_sum(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    codes = ops.nearest(x, codebook, check=False)
    return codes, *ops.ema_update(x, codes, codebook.shape[0])


@pytest.mark.parametrize("dim", [16, 64])
def test_follows_the_current_stream(dim: int) -> None:
    x, codebook = (t.cuda() for t in near_ties(2000, dim, 512))
    want = look_up_and_sum(x, codebook)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)
        results = look_up_and_sum(x + 0, codebook)
    stream.synchronize()
    for result, expected in zip(results, want, strict=True):
        assert torch.equal(result, expected)


@pytest.mark.parametrize("dim", [16, 64])
def test_in_a_cuda_graph(dim: int) -> None:
    x, codebook = (t.cuda() for t in near_ties(2000, dim, 512))
    static = torch.zeros_like(x)
    look_up_and_sum(static, codebook)  # loads the kernels
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = look_up_and_sum(static, codebook)
    for rows in (x, x.flip(0)):
        static.copy_(rows)
        graph.replay()
        for result, expected in zip(results, look_up_and_sum(rows, codebook), strict=True):
            assert torch.equal(result, expected)


def test_on_another_device_than_the_current_one() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one CUDA device")
    x, codebook = near_ties(500, 40, 100)
    with torch.cuda.device(0):
        results = look_up_and_sum(x.to("cuda:1"), codebook.to("cuda:1"))
        assert torch.cuda.current_device() == 0
    for result, expected in zip(results, look_up_and_sum(x, codebook), strict=True):
        assert result.device.index == 1
        assert torch.equal(result.cpu(), expected)
