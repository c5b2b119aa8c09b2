"""What bench_nearest.py compares: each takes a case and a number of threads and gives a lookup.

Rivals may prepare their index of the codebook outside the clock. `numpy` is the strongest form of
the common one that we found: matrix products of 1 M scores at a time, argmax, one Python thread
per chunk with one BLAS thread each.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from bench_nearest_data import Case
from torch import Tensor

from vqtok import ops
from vqtok.ops import native

OURS = "vqtok"
MATRIX = ("addmm", "compile", "cdist", "vector-quantize-pytorch")  # hold all N x K distances
MOST_DISTANCES = 1 << 28
CHUNK = 1 << 20  # scores at a time
Lookup = Callable[[], Any]


def vqtok(method: str) -> Callable[[Case, int], Lookup]:
    def make(case: Case, threads: int) -> Lookup:
        def lookup() -> Tensor:
            with native.force_method(method):
                return ops.nearest(case.x, case.codebook)

        return lookup

    return make


def cdist(case: Case, threads: int) -> Lookup:
    return lambda: torch.cdist(case.x, case.codebook).argmin(dim=1)


def scores(x: Tensor, transposed: Tensor, half: Tensor) -> Tensor:
    return torch.addmm(half, x, transposed).argmax(dim=1)


def addmm(case: Case, threads: int) -> Lookup:
    transposed, half = case.codebook.T, -0.5 * case.codebook.square().sum(dim=1)
    return lambda: scores(case.x, transposed, half)


def addmm_chunked(case: Case, threads: int) -> Lookup:
    transposed, half = case.codebook.T, -0.5 * case.codebook.square().sum(dim=1)
    step = max(1, CHUNK // len(case.codebook))
    return lambda: torch.cat([scores(rows, transposed, half) for rows in case.x.split(step)])


def compiled(case: Case, threads: int) -> Lookup:
    transposed, half = case.codebook.T, -0.5 * case.codebook.square().sum(dim=1)
    function = torch.compile(scores, dynamic=False)
    return lambda: function(case.x, transposed, half)


def vqp(case: Case, threads: int) -> Lookup:
    from vector_quantize_pytorch import VectorQuantize

    size, dim = case.codebook.shape
    layer = VectorQuantize(dim=dim, codebook_size=size).eval()
    layer._codebook.embed.data.copy_(case.codebook[None])

    def lookup() -> Any:
        with torch.no_grad():
            return layer(case.x[None])[1][0]

    return lookup


def faiss_flat(case: Case, threads: int) -> Lookup:
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatL2(case.codebook.shape[1])
    index.add(case.codebook.numpy())
    return lambda: index.search(case.x.numpy(), 1)[1][:, 0]


def sklearn(case: Case, threads: int) -> Lookup:
    from sklearn.metrics import pairwise_distances_argmin

    return lambda: pairwise_distances_argmin(case.x.numpy(), case.codebook.numpy())


def numpy_chunks(case: Case, threads: int) -> Lookup:
    x, codebook = case.x.numpy(), case.codebook.numpy()
    transposed, half = codebook.T, 0.5 * np.square(codebook).sum(axis=1)
    step = max(1, min(CHUNK // len(codebook), -(-len(x) // threads)))
    pool = ThreadPoolExecutor(threads)
    buffers = [np.empty((step, len(codebook)), np.float32) for _ in range(threads)]
    codes = np.empty(len(x), np.int64)

    def share(member: int) -> None:
        for start in range(member * step, len(x), threads * step):
            rows = x[start : start + step]
            chunk = buffers[member][: len(rows)]
            np.matmul(rows, transposed, out=chunk)
            chunk -= half
            chunk.argmax(axis=1, out=codes[start : start + step])

    def lookup() -> Any:
        if threads == 1:
            share(0)
        else:
            list(pool.map(share, range(threads)))
        return codes

    return lookup


def scipy_tree(case: Case, threads: int) -> Lookup:
    from scipy.spatial import cKDTree

    tree = cKDTree(case.codebook.numpy())
    return lambda: tree.query(case.x.numpy(), workers=threads)[1]


def pykdtree_tree(case: Case, threads: int) -> Lookup:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    from pykdtree.kdtree import KDTree

    tree = KDTree(case.codebook.numpy())
    return lambda: tree.query(case.x.numpy())[1]


CONTENDERS: dict[str, Callable[[Case, int], Lookup]] = {
    OURS: vqtok("auto"),
    "vqtok float32": vqtok("float32"),
    "numpy": numpy_chunks,
    "faiss": faiss_flat,
    "addmm chunked": addmm_chunked,
    "addmm": addmm,
    "cdist": cdist,
    "sklearn": sklearn,
    "vector-quantize-pytorch": vqp,
    "cKDTree": scipy_tree,
    "pykdtree": pykdtree_tree,
    "compile": compiled,  # last: compiling takes longest, and time may run out
}
TREES = ("cKDTree", "pykdtree")
TREE_DIM = 8  # beyond, trees visit everything


def contenders(case: Case, threads: int, only: list[str]) -> Iterator[tuple[str, Lookup]]:
    """Those asked for (all, if none is) that are installed and suit the case."""
    for name, make in CONTENDERS.items():
        rows, dim, size = case.shape
        if (only and name not in only) or (name in TREES and dim > TREE_DIM):
            continue
        if name in MATRIX and rows * size > MOST_DISTANCES:
            continue
        try:
            yield name, make(case, threads)
        except ImportError as error:
            print(f"{name}: left out, {error}", file=sys.stderr)
