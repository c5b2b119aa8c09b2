"""The ops as torch sees them: schemas, fakes, gradients, compilation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vqtok import ops
from vqtok.ops import library, native

OPS = torch.ops.vqtok


def cases() -> dict[str, tuple[Any, tuple[Any, ...]]]:
    assert library
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 6, generator=generator)
    codebook = torch.randn(9, 6, generator=generator, dtype=torch.float64)
    codes = ops.nearest(x, codebook)
    return {
        "nearest": (OPS.nearest.default, (x.requires_grad_(), codebook.requires_grad_())),
        "nearest bf16": (OPS.nearest.default, (x.detach().bfloat16(), codebook, False)),
        "ema_update": (OPS.ema_update.default, (x.detach(), codes, 9)),
        "pack_bits": (OPS.pack_bits.default, (codes, 5)),
        "unpack_bits": (OPS.unpack_bits.default, (ops.pack_bits(codes, 5), 5, 20)),
    }


@pytest.mark.parametrize("name", cases())
def test_opcheck(name: str) -> None:
    op, arguments = cases()[name]
    results = torch.library.opcheck(op, arguments)
    assert set(results.values()) == {"SUCCESS"}


def test_opcheck_of_the_gradient() -> None:
    op, (x, codes, size) = cases()["ema_update"]
    # the fourth check adds outputs up, and stumbles over integers before floats
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    results = torch.library.opcheck(op, (x.requires_grad_(), codes, size), test_utils=checks)
    assert set(results.values()) == {"SUCCESS"}


def test_codes_carry_no_gradient_and_backward_survives() -> None:
    x = torch.randn(20, 6, requires_grad=True)
    codebook = torch.randn(9, 6, requires_grad=True)
    codes = ops.nearest(x, codebook)
    assert not codes.requires_grad
    quantized = codebook[codes]
    (quantized - x).square().sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, 2 * (x - quantized).detach())


def everything(x: Tensor, codebook: Tensor) -> tuple[Tensor, ...]:
    codes = ops.nearest(x, codebook)
    counts, sums = ops.ema_update(x, codes, codebook.shape[0])
    back = ops.unpack_bits(ops.pack_bits(codes, 6), 6, x.shape[0])
    return codes, back, counts, sums, codebook[codes]


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_as_one_graph(dynamic: bool) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(everything, fullgraph=True, dynamic=dynamic)
    for n in (20, 33) if dynamic else (20,):
        x = torch.randn(n, 6, requires_grad=True)
        codebook = torch.randn(9, 6, requires_grad=True)
        want, got = everything(x, codebook), compiled(x, codebook)
        for a, b in zip(want, got, strict=True):
            assert torch.equal(a, b)
        (got[3].sum() + got[4].square().sum()).backward()
        grads = x.grad, codebook.grad
        x.grad = codebook.grad = None
        (want[3].sum() + want[4].square().sum()).backward()
        for a, b in zip(grads, (x.grad, codebook.grad), strict=True):
            assert a is not None
            assert b is not None
            torch.testing.assert_close(a, b)


def test_exports() -> None:
    class Lookup(torch.nn.Module):
        def forward(self, x: Tensor, codebook: Tensor) -> Tensor:
            return ops.nearest(x, codebook, check=False)

    x, codebook = torch.randn(20, 6), torch.randn(9, 6)
    exported = torch.export.export(
        Lookup(), (x, codebook), dynamic_shapes=({0: torch.export.Dim("n")}, None)
    )
    x = torch.randn(31, 6)
    assert torch.equal(exported.module()(x, codebook), ops.nearest(x, codebook))


def test_meta_tensors_have_shapes() -> None:
    codes = ops.nearest(torch.empty(7, 3, device="meta"), torch.empty(5, 3, device="meta"))
    assert codes.shape == (7,)
    assert codes.dtype == torch.int64
    with pytest.raises(ValueError, match="x has dim 3, codebook has dim 4"):
        ops.nearest(torch.empty(7, 3, device="meta"), torch.empty(5, 4, device="meta"))


def test_other_devices_get_the_reference() -> None:
    x, codebook = torch.randn(30, 4), torch.randn(8, 4)
    want = ops.nearest(x, codebook)
    assert native.native_available()
    assert torch.equal(library._nearest_any(x, codebook), want)
    x[3, 0] = torch.nan
    with pytest.raises(ValueError, match=r"x\[3\] holds NaN"):
        library._nearest_any(x, codebook)
    codebook[2, 1] = torch.inf
    with pytest.raises(ValueError, match=r"codebook\[2\] holds"):
        library._nearest_any(x, codebook)
    codes = torch.tensor([3, 1, 2])
    assert torch.equal(library._unpack_any(library._pack_any(codes, 2), 2, 3), codes)
    with pytest.raises(ValueError, match=r"codes\[0\] is 3, outside"):
        library._ema_any(torch.zeros(3, 2), codes, 3)
    with pytest.raises(ValueError, match=r"codes\[0\] is 3, outside"):
        library._pack_any(codes, 1)
