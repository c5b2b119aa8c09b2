"""The networks that the tensors of a prior's file hold, checked against FORMAT.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtok.ops.prior import Layer, Network, Networks

MAX_OFFSET = 8
MAX_SLOTS = 64
MAX_WIDTH = 4096
MAX_OUTCOMES = 4096
MAX_HIDDEN = 8
MAX_SHIFT = 24
MAX_BIAS = 1 << 30
MAX_WORK = 1 << 22
"""Most multiplications that a code may take: a hostile prior is no way to keep a reader busy."""

MAX_PADDED = 1 << 27
"""Most weights of all networks, rows and columns of layers and groups padded to PADDING."""
PADDING = 16


def _padded(size: int) -> int:
    return -(-size // PADDING) * PADDING


class Checker:
    """Reads networks out of tensors; every complaint is a ValueError that names the tensor."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]], sizes: Sequence[int]) -> None:
        self._tensors, self._sizes = tensors, sizes
        self._left = set(tensors)
        self._padded = 0

    def networks(self) -> Networks:
        embeddings = {c: self._embedding(c) for c in range(len(self._sizes))}
        known = {c: table for c, table in embeddings.items() if table is not None}
        networks = tuple(self._network(q, known) for q in range(len(self._sizes)))
        if self._left:
            raise ValueError(f"tensor {min(self._left)!r} is not part of a prior")
        return Networks(known, networks)

    def _take(self, name: str, dtype: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise ValueError(f"tensor {name!r} is missing")
        self._left.discard(name)
        fits = tensor.ndim == len(shape) and all(
            have == want if want is not None else 1 <= have <= MAX_WIDTH
            for have, want in zip(tensor.shape, shape, strict=True)
        )
        if tensor.dtype != dtype or not fits:
            wanted = ", ".join(f"1 to {MAX_WIDTH}" if n is None else str(n) for n in shape)
            raise ValueError(
                f"tensor {name!r} is {tensor.dtype} {list(tensor.shape)}, expected {dtype} "
                f"[{wanted}]"
            )
        return tensor

    def _embedding(self, codebook: int) -> NDArray[np.uint8] | None:
        name = f"embedding.{codebook}"
        if name not in self._tensors:
            return None
        table = self._take(name, "uint8", (self._sizes[codebook] + 1, None))
        if table.max() > 127:
            raise ValueError(f"tensor {name!r} has values above 127")
        return table

    def _network(self, q: int, embeddings: Mapping[int, NDArray[np.uint8]]) -> Network:
        context = self._context(q, embeddings)
        width = sum(embeddings[c].shape[1] for c in context[:, 0].tolist())
        if width > MAX_WIDTH:
            raise ValueError(f"the contexts of network {q} are {width} wide, over {MAX_WIDTH}")
        grouped = f"{q}.order" in self._tensors
        shifts = self._tensors.get(f"{q}.shifts", np.zeros(0, np.int32))
        depth = len(shifts) - (2 if grouped else 1) if shifts.ndim == 1 else 0
        shifts = self._take(f"{q}.shifts", "int32", (None,))
        if not 1 <= depth <= MAX_HIDDEN:
            raise ValueError(f"network {q} has {depth} hidden layers, not 1 to {MAX_HIDDEN}")
        if shifts.min() < 0 or shifts.max() > MAX_SHIFT or 0 in shifts[:depth]:
            raise ValueError(f"the shifts of network {q}, {shifts.tolist()}, are out of range")
        hidden = []
        for level in range(depth):
            layer = self._layer(f"{q}.hidden.{level}", None, width, int(shifts[level]))
            hidden.append(layer)
            width = len(layer.bias)
        size = self._sizes[q]
        output = self._layer(f"{q}.output", size, width, int(shifts[depth]))
        groups = order = None
        if grouped:
            groups = self._layer(f"{q}.groups", None, width, int(shifts[-1]))
            order = self._take(f"{q}.order", "int32", (size,))
            if not np.array_equal(np.sort(order), np.arange(size)):
                raise ValueError(f"tensor '{q}.order' is not a permutation of the codes")
        network = Network(context, tuple(hidden), output, groups, order)
        work = sum(layer.weight.size for layer in hidden)
        work += (network.group_size + (0 if groups is None else len(groups.bias))) * width
        if work > MAX_WORK:
            raise ValueError(
                f"network {q} multiplies {work:,} times for a code, at most {MAX_WORK:,} may be"
            )
        if network.group_size > MAX_OUTCOMES:
            raise ValueError(
                f"network {q} chooses among {network.group_size} codes, at most {MAX_OUTCOMES} "
                "can be: cut them into groups"
            )
        self._count_padded(network)
        if groups is not None and -(-size // network.group_size) != len(groups.bias):
            raise ValueError(
                f"{size} codes do not fill the {len(groups.bias)} groups of network {q}"
            )
        return network

    def _count_padded(self, network: Network) -> None:
        """A hostile prior of many narrow groups is no way to fill a reader's memory."""
        layers = (*network.hidden, *([network.groups] if network.groups else []))
        shapes = [(1, *layer.weight.shape) for layer in layers]
        count = 1 if network.groups is None else len(network.groups.bias)
        shapes.append((count, network.group_size, network.output.weight.shape[1]))
        for parts, rows, columns in shapes:
            self._padded += parts * _padded(rows) * _padded(columns)
        if self._padded > MAX_PADDED:
            raise ValueError(
                f"the networks have over {MAX_PADDED:,} weights once rows and columns are padded "
                f"to multiples of {PADDING}"
            )

    def _context(self, q: int, embeddings: Mapping[int, NDArray[np.uint8]]) -> NDArray[np.int32]:
        context: NDArray[np.int32] = self._take(f"{q}.context", "int32", (None, 3))
        if len(context) > MAX_SLOTS:
            raise ValueError(f"network {q} has {len(context)} contexts, at most {MAX_SLOTS}")
        for codebook, rows, columns in context.tolist():
            known = codebook < q or (codebook == q and 2 * rows + columns < 0)
            near = abs(rows) <= MAX_OFFSET and abs(columns) <= MAX_OFFSET
            if not (codebook >= 0 and known and near):
                raise ValueError(
                    f"network {q} cannot see codebook {codebook} at ({rows}, {columns})"
                )
            if codebook not in embeddings:
                raise ValueError(f"tensor 'embedding.{codebook}' is missing")
        return context

    def _layer(self, name: str, out: int | None, width: int, shift: int) -> Layer:
        bias = self._take(f"{name}.bias", "int32", (out,))
        weight = self._take(f"{name}.weight", "int8", (len(bias), width))
        if weight.min() < -127 or bias.min() < -MAX_BIAS or bias.max() > MAX_BIAS:
            raise ValueError(f"the values of {name!r} are out of range")
        return Layer(weight, bias, shift)
