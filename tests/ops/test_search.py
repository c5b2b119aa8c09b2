"""The nearest few codes and the beam search, against sorting and plain lists in float64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vqtok import ops
from vqtok.ops import native, reference

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


WAYS = [(isa, "auto") for isa in native.supported_isas() or ["reference"]]
WAYS += [("amx", method) for method in ("float32", "split") if ("amx", "auto") in WAYS]


@pytest.fixture(params=WAYS, ids="-".join)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    name, method = request.param
    with native.force_isa(name), native.force_method(method):
        yield name


def distances(row: list[float], table: list[list[float]]) -> list[float]:
    """Python floats: every operation rounded to float64, terms by ascending d."""
    found = []
    for code in table:
        total = 0.0
        for a, b in zip(row, code, strict=True):
            difference = a - b
            try:
                total += difference * difference
            except OverflowError:
                total = float("inf")
        found.append(total if total == total else float("inf"))
    return found


def by_sorting(x: Tensor, codebook: Tensor, k: int) -> tuple[Tensor, Tensor]:
    table = codebook.double().tolist()
    rows = [distances(row, table) for row in x.double().tolist()]
    order = [sorted(range(len(table)), key=lambda c: (row[c], c))[:k] for row in rows]
    near = [[row[c] for c in chosen] for row, chosen in zip(rows, order, strict=True)]
    return (
        torch.tensor(order, dtype=torch.int64).view(-1, k),
        torch.tensor(near, dtype=torch.float64).float().view(-1, k),
    )


def by_lists(x: Tensor, codebooks: list[Tensor], width: int) -> Tensor:
    tables = [codebook.double().tolist() for codebook in codebooks]
    found = []
    for row in x.double().tolist():
        beam: list[tuple[list[int], list[float]]] = [([], row)]
        for table in tables:
            grown = [
                (distance, member, code)
                for member, (_, rest) in enumerate(beam)
                for code, distance in enumerate(distances(rest, table))
            ]
            beam = [
                ([*beam[m][0], c], [a - b for a, b in zip(beam[m][1], table[c], strict=True)])
                for _, m, c in sorted(grown)[:width]
            ]
        found.append(beam[0][0])
    return torch.tensor(found, dtype=torch.int64).view(len(x), len(tables))


def near_ties(n: int, d: int, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rows and codes with exact duplicates, 1e-7 perturbations and midpoints."""
    generator = torch.Generator().manual_seed(n + 7 * d + 31 * size)
    codebook = torch.randn(size, d, generator=generator, dtype=torch.float64)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    if size >= 9:
        codebook[size // 2 :: 5] = codebook[1]
        codebook[size // 3 :: 7] = codebook[2] * (1 + 1e-7)
        codebook[size // 4 :: 9] = codebook[0] + 1e-7
    picks = torch.randint(size, (2, n), generator=generator)
    x[::3] = codebook[picks[0]][::3]
    x[1::3] = 0.5 * (codebook[picks[0]] + codebook[picks[1]])[1::3]
    return x.to(dtype), codebook.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("n", "d", "size", "k"),
    [(0, 4, 8, 2), (1, 1, 1, 1), (33, 4, 9, 9), (40, 3, 77, 5), (20, 33, 333, 40), (9, 300, 70, 3),
     (70, 8, 700, 1)],
)  # fmt: skip
def test_equals_sorting(n: int, d: int, size: int, k: int, dtype: torch.dtype, isa: str) -> None:
    x, codebook = near_ties(n, d, size, dtype)
    codes, near = by_sorting(x, codebook, k)
    for count in (1, 3):
        with threads(count):
            got = ops.nearest_k(x, codebook, k)
        assert torch.equal(got[0], codes)
        assert torch.equal(got[1], near)
    assert torch.equal(codes[:, 0], ops.nearest(x, codebook))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "d", "size", "k"), [(0, 4, 8, 2), (40, 3, 77, 5), (33, 4, 9, 9)])
def test_reference_equals_sorting(n: int, d: int, size: int, k: int, dtype: torch.dtype) -> None:
    x, codebook = near_ties(n, d, size, dtype)
    for got, want in zip(
        reference.nearest_k(x, codebook, k), by_sorting(x, codebook, k), strict=True
    ):
        assert torch.equal(got, want)


@pytest.mark.parametrize("row_scale", [1e-44, 1e-23, 1e-7, 1e8, 1e18, 1e20, 1e38])
@pytest.mark.parametrize("code_scale", [1e-42, 1e-23, 1.0, 1e15, 1e37])
def test_any_scale(row_scale: float, code_scale: float, isa: str) -> None:
    generator = torch.Generator().manual_seed(1)
    x = (torch.randn(20, 9, generator=generator).clamp(-3, 3).double() * row_scale).float()
    codebook = (torch.randn(70, 9, generator=generator).clamp(-3, 3).double() * code_scale).float()
    for got, want in zip(ops.nearest_k(x, codebook, 4), by_sorting(x, codebook, 4), strict=True):
        assert torch.equal(got, want)
    tables = [codebook, codebook[:9] * 0.1]
    assert torch.equal(ops.beam_search(x, tables, 3), by_lists(x, tables, 3))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_small_integers_tie_everywhere(data: st.DataObject) -> None:
    def matrix(rows: int) -> Tensor:
        values = st.lists(st.integers(-1, 1), min_size=rows * dim, max_size=rows * dim)
        return torch.tensor(data.draw(values), dtype=torch.float32).view(rows, dim)

    dim, width = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 7))
    x = matrix(data.draw(st.integers(0, 5)))
    tables = [
        matrix(size) for size in data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=3))
    ]
    want = by_lists(x, tables, width)
    assert torch.equal(ops.beam_search(x, tables, width), want)
    if len(x):
        assert torch.equal(reference.beam_search(x, tables, width), want)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("n", "d", "sizes", "width"),
    [(0, 3, (5, 4), 2), (1, 1, (1,), 4), (40, 5, (33, 8, 1, 12), 3), (70, 4, (64, 30), 1),
     (5, 130, (20, 9), 12)],
)  # fmt: skip
def test_beam_equals_lists(
    n: int, d: int, sizes: tuple[int, ...], width: int, dtype: torch.dtype, isa: str
) -> None:
    x, _ = near_ties(n, d, sizes[0], dtype)
    tables = [near_ties(1, d, size, dtype)[1] / (q + 1) for q, size in enumerate(sizes)]
    want = by_lists(x, tables, width)
    for count in (1, 3):
        with threads(count):
            assert torch.equal(ops.beam_search(x, tables, width), want)
    if n:
        assert torch.equal(reference.beam_search(x, tables, width), want)


def test_a_codebook_too_large_for_the_cache() -> None:
    x, codebook = near_ties(300, 40, 9000, torch.float32)
    codes, near = ops.nearest_k(x, codebook, 3)
    want, far = reference.nearest_k(x, codebook, 3)
    assert torch.equal(codes, want)
    assert torch.equal(near, far)
    assert torch.equal(
        ops.beam_search(x, [codebook] * 2, 3), reference.beam_search(x, [codebook] * 2, 3)
    )


def test_strides_change_nothing() -> None:
    x, codebook = near_ties(50, 6, 40, torch.float32)
    wide = torch.full((50, 9), torch.nan)
    wide[:, 2:8] = x
    table = codebook.T.contiguous().T
    assert torch.equal(ops.nearest_k(wide[:, 2:8], table, 3)[0], ops.nearest_k(x, codebook, 3)[0])
    assert torch.equal(
        ops.beam_search(wide[:, 2:8], [table] * 2, 3), ops.beam_search(x, [codebook] * 2, 3)
    )


def test_bad_values_are_refused_or_defined(isa: str) -> None:
    x, codebook = near_ties(40, 5, 30, torch.float32)
    x[7, 1], codebook[4, 0] = torch.nan, torch.inf
    with pytest.raises(ValueError, match=r"codebook\[4\] holds NaN or Inf"):
        ops.nearest_k(x, codebook, 2)
    with pytest.raises(ValueError, match=r"codebooks\[1\]\[4\] holds NaN or Inf"):
        ops.beam_search(x[:5], [codebook[:4], codebook], 2)
    with pytest.raises(ValueError, match=r"x\[7\] holds NaN or Inf"):
        ops.beam_search(x, [codebook[:4]], 2)
    for got, want in zip(
        ops.nearest_k(x, codebook, 30, check=False), by_sorting(x, codebook, 30), strict=True
    ):
        assert torch.equal(got, want)
    codes = ops.beam_search(x, [codebook, codebook], 3, check=False)
    assert codes[7].tolist() == [0, 0]
    assert torch.equal(codes, reference.beam_search(x, [codebook, codebook], 3))


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda x: ops.nearest_k(x, x[:, :1], 1), "codebook has dim 1"),
        (lambda x: ops.nearest_k(x, x, 4), "size 3, got 4"),
        (lambda x: ops.nearest_k(x, x, 0), "size 3, got 0"),
        (lambda x: ops.beam_search(x, [], 2), "at least one codebook"),
        (lambda x: ops.beam_search(x, [x], 0), "beam must be at least 1"),
        (lambda x: ops.beam_search(x, [x, x[:, :1]], 2), "codebook has dim 1"),
    ],
)
def test_wrong_arguments(run, message: str) -> None:  # type: ignore[no-untyped-def]
    for device in ("cpu", "meta"):
        with pytest.raises(ValueError, match=message):
            run(torch.zeros(3, 2, device=device))


def test_opcheck_and_one_graph() -> None:
    x, codebook = near_ties(20, 6, 9, torch.float32)
    for op, arguments in (
        (torch.ops.vqtok.nearest_k.default, (x, codebook, 3)),
        (torch.ops.vqtok.beam_search.default, (x, [codebook, codebook], 2)),
    ):
        assert set(torch.library.opcheck(op, arguments).values()) == {"SUCCESS"}

    def both(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return *ops.nearest_k(x, codebook, 3), ops.beam_search(x, [codebook, codebook], 2)

    compiled = torch.compile(both, fullgraph=True, dynamic=True, backend="aot_eager")
    for rows in (x, x[:7].clone().requires_grad_()):
        for got, want in zip(compiled(rows, codebook), both(rows, codebook), strict=True):
            assert torch.equal(got, want)
            assert not got.requires_grad
