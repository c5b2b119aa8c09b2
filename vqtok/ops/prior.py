"""A learned prior over codes, in integers: evaluation natively, or in numpy with the same results.

FORMAT.md of vqtok.tokens defines the model. Nothing here is checked: see vqtok.tokens.prior.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtok.ops import native
from vqtok.ops.range_coder import RangeDecoder, RangeEncoder

Planes = NDArray[np.uint32]

WEIGHT_BITS = 19
STEPS_PER_BIT = 32
MAX_STEPS = WEIGHT_BITS * STEPS_PER_BIT
MAX_WEIGHT = 1 << 21
"""Of 1/32 bit in a choice of codes."""
MAX_BATCH = 256


@dataclass(frozen=True)
class Layer:
    """``weight``: int8 [out, in]; ``bias``: int32 [out]; ``shift`` of what it puts out."""

    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    shift: int

    def native(self) -> tuple[int, ...]:
        """What the native module takes."""
        return (self.weight.ctypes.data, self.bias.ctypes.data, *self.weight.shape, self.shift)


@dataclass(frozen=True)
class Network:
    """The network of one codebook.

    ``context``: int32 [S, 3], rows of (codebook, rows, columns). ``output``: K rows, one per code
    in ``order`` int32 [K]; these are cut into as many equal groups as ``groups`` has rows, the last
    being shorter. Both are None for a single level.
    """

    context: NDArray[np.int32]
    hidden: tuple[Layer, ...]
    output: Layer
    groups: Layer | None = None
    order: NDArray[np.int32] | None = None

    @property
    def group_size(self) -> int:
        """Codes of a group."""
        return -(-len(self.output.bias) // (1 if self.groups is None else len(self.groups.bias)))


def value_bits(dim: int) -> int:
    """B: a choice of codes takes targets and embeddings [dim] whose values are below 2**B.

    |e|**2 + 2 |e| |t| is less than 3 * 2**28 then, and with MAX_WEIGHT * MAX_STEPS below 2**31.
    """
    return (28 - (dim - 1).bit_length()) // 2


@dataclass(frozen=True)
class Wanted:
    """What the codes of a plane are chosen for; integers, so that every machine chooses the same.

    ``targets``: int16 [rows, columns, D], for each position what its embedding should be near.
    ``embeddings``: int16 [K, D]. Both contiguous, values below 2**value_bits(D) in magnitude.
    ``weight``, ``weight_shift``: 1/32 bit is worth weight / 2**weight_shift of squared distance,
    weight in [0, MAX_WEIGHT], weight_shift in [0, 20].
    ``first_row``: rows before it are known.
    """

    targets: NDArray[np.int16]
    embeddings: NDArray[np.int16]
    weight: int
    weight_shift: int
    first_row: int = 0


@dataclass
class Networks:
    """A prior. ``embeddings``: of each codebook that a context names, uint8 [K + 1, width]. All
    arrays must be contiguous.
    """

    embeddings: Mapping[int, NDArray[np.uint8]]
    networks: tuple[Network, ...]
    _native: Any = field(default=None, repr=False)

    def encode(self, planes: Planes) -> list[bytes]:
        """The streams of uint32 [q, rows, columns], contiguous, codes in range."""
        module = native.load()
        if module is None:
            return [_Encoder(self, planes, q).run().finish() for q in range(len(planes))]
        streams: list[bytes] = module.prior_encode_cpu(
            *(self._loaded(module), planes.ctypes.data, *planes.shape),
            *(native.num_threads(), native.isa()),
        )
        return streams

    def decode(self, planes: Planes, q: int, stream: bytes) -> bool:
        """Fill plane q of [Q, rows, columns]; False if bytes of the stream were left over."""
        module = native.load()
        if module is None:
            return not _Decoder(self, planes, q, stream).run().has_rest
        whole: bool = module.prior_decode_cpu(
            *(self._loaded(module), planes.ctypes.data, q, *planes.shape[1:], stream),
            native.isa(),
        )
        return whole

    def choose(self, planes: Planes, q: int, wanted: Wanted) -> None:
        """Fill plane q of [Q, rows, columns], contiguous: in coding order, each code is the one of
        least squared distance plus weighted bits, given those before it.
        """
        module = native.load()
        if module is None:
            _Chooser(self, planes, q, wanted).run_plane(wanted.first_row)
            return
        module.prior_choose_cpu(
            *(self._loaded(module), planes.ctypes.data, q, *planes.shape[1:]),
            *(wanted.targets.ctypes.data, wanted.embeddings.ctypes.data),
            *(wanted.targets.shape[-1], wanted.weight, wanted.weight_shift, wanted.first_row),
            native.isa(),
        )

    def weights(self, planes: Planes) -> Planes:
        """uint32 [q, rows, columns, 4]: for each code the weight of its group, of all groups (1 of
        1 for a single level), its own in the group, and of all in the group.
        """
        found = np.empty((*planes.shape, 4), np.uint32)
        module = native.load()
        for q in range(len(planes)):
            if module is None:
                _Weigher(self, planes, q, found[q]).run()
            else:
                module.prior_weights_cpu(
                    *(self._loaded(module), planes.ctypes.data, q, *planes.shape[1:]),
                    *(found[q].ctypes.data, native.isa()),
                )
        return found

    def _loaded(self, module: Any) -> Any:
        """The prior as the native module has it, made once."""
        if self._native is None:
            codebooks = range(len(self.networks))
            embeddings = [self.embeddings.get(c, np.zeros((1, 0), np.uint8)) for c in codebooks]
            self._native = module.Prior(
                [(table.ctypes.data, len(table) - 1, table.shape[1]) for table in embeddings],
                [
                    (
                        *(each.context.ctypes.data, len(each.context)),
                        [layer.native() for layer in each.hidden],
                        each.output.native(),
                        None if each.groups is None else each.groups.native(),
                        0 if each.order is None else each.order.ctypes.data,
                    )
                    for each in self.networks
                ],
            )
        return self._native

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_native": None}


# --- In numpy ------------------------------------------------------------------------------------


@cache
def powers() -> NDArray[np.int64]:
    """2 ** (19 - i / 32), rounded down, for i in [0, 32): int64 [32]."""
    # the largest integer whose 32nd power is at most 2 ** (19 * 32 - i)
    table = []
    for i in range(32):
        low, high = 0, 1 << (WEIGHT_BITS + 1)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if middle**32 <= 1 << (608 - i) else (low, middle)
        table.append(low)
    return np.array(table, np.int64)


def outcome_weights(outputs: NDArray[np.int64], shift: int) -> NDArray[np.int64]:
    """The weights int64 [..., n] of n outcomes, each in [1, 2**19 + 1], from a layer's outputs."""
    below = (outputs.max(axis=-1, keepdims=True) - outputs) >> shift
    octaves = np.minimum(below >> 5, WEIGHT_BITS + 1)
    weights: NDArray[np.int64] = 1 + (powers()[below & 31] >> octaves)
    return weights


def apply(layer: Layer, x: NDArray[np.int64]) -> NDArray[np.int64]:
    """The outputs int64 [N, out] of a layer for inputs [N, in]."""
    # sums of less than 2 ** 53, exact in float64
    product = x.astype(np.float64) @ layer.weight.T.astype(np.float64)
    outputs: NDArray[np.int64] = product.astype(np.int64) + layer.bias
    return outputs


def activate(layer: Layer, x: NDArray[np.int64]) -> NDArray[np.int64]:
    """The activations int64 [N, out], each in [0, 127], of a hidden layer."""
    half = 1 << (layer.shift - 1)
    values: NDArray[np.int64] = np.clip((apply(layer, x) + half) >> layer.shift, 0, 127)
    return values


def fronts(
    rows: int, columns: int, first_row: int = 0
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The positions (rows, columns) that can be coded at once, in the order of the stream."""
    for front in range(2 * first_row, 2 * (rows - 1) + columns):
        row = np.arange(max(first_row, (front - columns + 2) // 2), min(rows - 1, front // 2) + 1)
        for first in range(0, len(row), MAX_BATCH):
            part = row[first : first + MAX_BATCH]
            yield part, front - 2 * part


class _Run:
    """A plane, position after position; a subclass says what happens with the weights."""

    fills = False  # whether the plane is found out, not known

    def __init__(self, prior: Networks, planes: Planes, q: int) -> None:
        self.prior, self.planes, self.q = prior, planes, q
        network = prior.networks[q]
        size = len(network.output.bias)
        order = np.arange(size) if network.order is None else network.order
        self.network, self.order = network, order
        self.ranks = np.empty(size, np.int64)
        self.ranks[order] = np.arange(size)

    def outcome(self, weights: NDArray[np.int64], place: tuple[int, int], level: int) -> int:
        """The outcome at a place: level 0 is the group, 1 the code in it."""
        raise NotImplementedError

    def known(self, place: tuple[int, int], level: int) -> int:
        """The outcome, where the plane is known."""
        rank = int(self.ranks[self.planes[self.q][place]])
        return divmod(rank, self.network.group_size)[level]

    def run_plane(self, first_row: int = 0) -> None:
        _, height, width = self.planes.shape
        for rows, columns in fronts(height, width, first_row):
            x = self.gather(rows, columns)
            for layer in self.network.hidden:
                x = activate(layer, x)
            self.front(rows, columns, x)

    def front(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64], x: NDArray[np.int64]
    ) -> None:
        """N positions that do not depend on one another, and what their last layer [N, in] sees."""
        network = self.network
        first = network.output if network.groups is None else network.groups
        weights = outcome_weights(apply(first, x), first.shift)
        for i, place in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
            if network.groups is None:
                rank = self.outcome(weights[i], place, 1)
            else:
                rank = self.member(self.outcome(weights[i], place, 0), x[i : i + 1], place)
            if self.fills:
                self.planes[self.q][place] = self.order[rank]

    def member(self, group: int, x: NDArray[np.int64], place: tuple[int, int]) -> int:
        """The rank of a code in a group."""
        output, size = self.network.output, self.network.group_size
        part = slice(group * size, (group + 1) * size)
        outputs = apply(Layer(output.weight[part], output.bias[part], output.shift), x)[0]
        return group * size + self.outcome(outcome_weights(outputs, output.shift), place, 1)

    def gather(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int64]:
        """The inputs [N, in] at N positions."""
        _, height, width = self.planes.shape
        found = []
        for codebook, down, right in self.network.context.tolist():
            table = self.prior.embeddings[codebook]
            y, x = rows + down, columns + right
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            codes = self.planes[codebook][y.clip(0, height - 1), x.clip(0, width - 1)]
            found.append(table[np.where(inside, codes, len(table) - 1)])
        return np.concatenate(found, axis=1).astype(np.int64)


class _Encoder(_Run):
    def run(self) -> RangeEncoder:
        self.coder = RangeEncoder()
        self.run_plane()
        return self.coder

    def outcome(self, weights: NDArray[np.int64], place: tuple[int, int], level: int) -> int:
        known = self.known(place, level)
        self.coder.symbol(int(weights[:known].sum()), int(weights[known]), int(weights.sum()))
        return known


class _Decoder(_Run):
    fills = True

    def __init__(self, prior: Networks, planes: Planes, q: int, stream: bytes) -> None:
        super().__init__(prior, planes, q)
        self.coder = RangeDecoder(stream)

    def run(self) -> RangeDecoder:
        self.run_plane()
        return self.coder

    def outcome(self, weights: NDArray[np.int64], place: tuple[int, int], level: int) -> int:
        ends = np.cumsum(weights)
        found = int(np.searchsorted(ends, self.coder.position(int(ends[-1])), "right"))
        self.coder.take(int(ends[found] - weights[found]), int(weights[found]))
        return found


class _Chooser(_Run):
    def __init__(self, prior: Networks, planes: Planes, q: int, wanted: Wanted) -> None:
        super().__init__(prior, planes, q)
        self.wanted = wanted
        self.embeddings = wanted.embeddings[self.order].astype(np.int64)

    def front(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64], x: NDArray[np.int64]
    ) -> None:
        targets = self.wanted.targets[rows, columns].astype(np.int64)
        distances = (self.embeddings**2).sum(1) - 2 * targets @ self.embeddings.T
        output, groups, size = self.network.output, self.network.groups, self.network.group_size
        weight, shift = self.wanted.weight, self.wanted.weight_shift
        outputs = apply(output, x)
        if groups is None:
            costs = distances + (weight * steps_below(outputs, output.shift) >> shift)
        else:
            of_groups = steps_below(apply(groups, x), groups.shift)
            costs = distances
            for group in range(of_groups.shape[1]):
                part = slice(group * size, (group + 1) * size)
                total = outcome_weights(outputs[:, part], output.shift).sum(1, keepdims=True)
                steps = of_groups[:, group : group + 1] + log2_steps(total)
                costs[:, part] += weight * steps_below(outputs[:, part], output.shift) >> shift
                costs[:, part] += weight * steps >> shift
        self.planes[self.q][rows, columns] = self.order[costs.argmin(1)]


def steps_below(outputs: NDArray[np.int64], shift: int) -> NDArray[np.int64]:
    """How far outcomes [N, n] lie below the likeliest, in 1/32 bit, at most MAX_STEPS."""
    most = outputs.max(axis=1, keepdims=True)
    steps: NDArray[np.int64] = np.minimum((most - outputs) >> shift, MAX_STEPS)
    return steps


def log2_steps(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """32 log2 of numbers in [1, 2**32), rounded down (or one less, by a hair)."""
    steps = np.frexp(numbers.astype(np.float64))[1].astype(np.int64) - 1
    part = numbers.astype(np.uint64) << (31 - steps).astype(np.uint64)
    for _ in range(5):
        part = part * part >> np.uint64(31)
        twice = part >> np.uint64(32)
        part >>= twice
        steps = steps * 2 + twice.astype(np.int64)
    return steps


class _Weigher(_Run):
    def __init__(self, prior: Networks, planes: Planes, q: int, found: Planes) -> None:
        super().__init__(prior, planes, q)
        self.found = found
        found[..., :2] = 1

    def run(self) -> None:
        self.run_plane()

    def outcome(self, weights: NDArray[np.int64], place: tuple[int, int], level: int) -> int:
        known = self.known(place, level)
        self.found[place][2 * level : 2 * level + 2] = weights[known], weights.sum()
        return known
