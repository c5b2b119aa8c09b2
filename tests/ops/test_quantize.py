"""Codes and quantized rows in one pass: bit for bit the loop over codebooks, with its gradients."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqtok import ops
from vqtok.ops import native, reference, residual


def loop(x: Tensor, codebooks: list[Tensor]) -> tuple[Tensor, Tensor]:
    """What a user would write, with the lookup's definition."""
    total = torch.zeros_like(x, dtype=torch.float32)
    codes = []
    for codebook in codebooks:
        codes.append(reference.nearest_by_definition(x.float() - total, codebook.float()))
        total = total + codebook.float()[codes[-1]]
    return total, torch.stack(codes, 1)


def problem(
    n: int, d: int, sizes: tuple[int, ...], dtype: torch.dtype
) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(n + d)
    x = torch.randn(n, d, generator=generator).to(dtype)
    tables = [torch.randn(k, d, generator=generator) / (q + 1) for q, k in enumerate(sizes)]
    tables[-1][-1] = tables[-1][0]
    return x, [table.to(dtype) for table in tables]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("n", "d", "sizes"),
    [(0, 3, (5, 4)), (1, 1, (1,)), (77, 5, (33,)), (300, 33, (100, 7, 1, 64)), (40, 300, (9, 9))],
)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("isa", native.supported_isas())
def test_equals_the_loop(
    n: int, d: int, sizes: tuple[int, ...], dtype: torch.dtype, threads: int, isa: str
) -> None:
    x, tables = problem(n, d, sizes, dtype)
    want = loop(x, tables)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with native.force_isa(isa):
            found = ops.quantize(x, tables)
    finally:
        torch.set_num_threads(before)
    for result in (found, reference.quantize(x, tables), residual._any(x, tables, True)):
        assert result[0].dtype == torch.float32
        assert torch.equal(result[0], want[0])
        assert torch.equal(result[1], want[1])


def test_blocks_and_strides_change_nothing() -> None:
    """More rows than are left over at a time."""
    x, tables = problem(9000, 130, (11, 5, 8), torch.float32)
    quantized, codes = ops.quantize(x, tables)
    for part in (slice(0, 100), slice(7900, 9000)):
        assert torch.equal(ops.quantize(x[part], tables)[0], quantized[part])
        assert torch.equal(ops.quantize(x[part], tables)[1], codes[part])
    wide = torch.full((9000, 140), torch.nan)
    wide[:, 4:134] = x
    assert torch.equal(
        ops.quantize(wide[:, 4:134], [t.T.contiguous().T for t in tables])[0], quantized
    )


def test_gradient_passes_straight_to_the_rows_and_to_the_chosen_codes() -> None:
    x, tables = problem(60, 5, (9, 7, 4), torch.float32)
    weights = torch.randn(60, 5)
    outcomes = []
    for op in (True, False):
        leaf = x.clone().requires_grad_()
        learned = [table.clone().requires_grad_() for table in tables]
        if op:
            quantized, codes = ops.quantize(leaf, learned)
            assert not codes.requires_grad
        else:
            codes = loop(x, tables)[1]
            chosen = sum(F.embedding(codes[:, q], table) for q, table in enumerate(learned))
            quantized = chosen + leaf - leaf.detach()
        (quantized * weights).sum().backward()
        outcomes.append([leaf.grad, *(table.grad for table in learned)])
    for got, want in zip(*outcomes, strict=True):
        torch.testing.assert_close(got, want)
    assert torch.equal(outcomes[0][0], weights)


def test_gradient_only_where_it_is_wanted_and_in_its_dtype() -> None:
    x, tables = problem(60, 5, (9, 7), torch.bfloat16)
    tables[1].requires_grad_()
    quantized, _ = ops.quantize(x, tables)
    quantized.sum().backward()
    assert tables[0].grad is None
    assert tables[1].grad is not None
    assert tables[1].grad.dtype == torch.bfloat16
    x.requires_grad_()
    ops.quantize(x, [table.detach() for table in tables])[0].sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("learned", [False, True])
def test_opcheck(learned: bool) -> None:
    x, tables = problem(20, 6, (9, 5), torch.float32)
    if learned:
        x.requires_grad_()
        tables = [table.requires_grad_() for table in tables]
    results = torch.library.opcheck(torch.ops.vqtok.quantize.default, (x, tables, True))
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_as_one_graph(dynamic: bool) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(ops.quantize, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for n in (20, 33) if dynamic else (20,):
        x, tables = problem(n, 6, (9, 5), torch.float32)
        gradients = []
        for run in (ops.quantize, compiled):
            leaf, learned = x.clone().requires_grad_(), tables[0].clone().requires_grad_()
            quantized, codes = run(leaf, [learned, tables[1]])
            quantized.square().sum().backward()
            gradients.append((leaf.grad, learned.grad, quantized.detach(), codes))
        for eager, traced in zip(*gradients, strict=True):
            assert torch.equal(eager, traced)


class Lookup(torch.nn.Module):
    def __init__(self, tables: list[Tensor]) -> None:
        super().__init__()
        self.tables = torch.nn.ParameterList(tables)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return *ops.quantize(x, list(self.tables)), ops.nearest_cosine(x, self.tables[0])


def test_exports() -> None:
    x, tables = problem(20, 6, (9, 5), torch.float32)
    lookup = Lookup(tables)
    exported = torch.export.export(lookup, (x,), dynamic_shapes=({0: torch.export.Dim("n")},))
    x = torch.randn(31, 6)
    for got, want in zip(exported.module()(x), lookup(x), strict=True):
        assert torch.equal(got, want)


def test_bad_values_are_refused_or_defined() -> None:
    x, tables = problem(60, 5, (9, 7), torch.float32)
    clean = ops.quantize(x, tables)
    x[11, 2] = torch.nan
    with pytest.raises(ValueError, match=r"x\[11\] holds NaN or Inf"):
        ops.quantize(x, tables)
    quantized, codes = ops.quantize(x, tables, check=False)
    assert codes[11].tolist() == [0, 0]
    rest = torch.arange(60) != 11
    assert torch.equal(codes[rest], clean[1][rest])
    assert torch.equal(quantized[rest], clean[0][rest])
    tables[1][3, 0] = torch.inf
    with pytest.raises(ValueError, match=r"codebooks\[1\]\[3\] holds NaN or Inf"):
        ops.quantize(x[:5], tables)


@pytest.mark.parametrize(
    ("x", "codebooks", "message"),
    [
        (torch.zeros(3, 2), [], "at least one codebook"),
        (torch.zeros(3, 2), [torch.zeros(4, 2), torch.zeros(4, 3)], "codebook has dim 3"),
        (torch.zeros(3, 2).double(), [torch.zeros(4, 2)], "float32, got torch.float64"),
        (torch.zeros(3, 2), [torch.zeros(0, 2)], r"\[0, 2\]"),
        (torch.zeros(2), [torch.zeros(4, 2)], r"x \[N, D\]"),
    ],
)
def test_wrong_arguments(x: Tensor, codebooks: list[Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ops.quantize(x, codebooks)
    with pytest.raises(ValueError, match=message):
        ops.quantize(x.to("meta"), [codebook.to("meta") for codebook in codebooks])


def test_holds_no_whole_residuals() -> None:
    code = """
import resource, torch
from vqtok import ops
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
x, tables = torch.randn(100_000, 64), [torch.randn(16, 64) for _ in range(8)]
ops.quantize(x[:64], tables)
before = peak()
quantized, codes = ops.quantize(x, tables)
made = quantized.nbytes + codes.nbytes
assert peak() - before < made + (16 << 20), f"{(peak() - before - made) >> 20} MiB extra"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_residual_that_overflows_is_called_so() -> None:
    codebooks = [torch.tensor([[-3e38]]), torch.ones(1, 1)]
    with pytest.raises(ValueError, match=r"leave of x\[0\] is too large"):
        ops.quantize(torch.tensor([[3e38]]), codebooks)
