"""What csrc/cpu/prior.cpp does, in numpy, with the same results."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vqtok.ops.counters import Counters, contexts_at, limited, squash, stretch
from vqtok.ops.prior import (
    LOOK_AHEAD,
    MAX_STEPS,
    NEXT_STEPS,
    WEIGHT_BITS,
    Layer,
    Networks,
    Planes,
    Wanted,
    value_bits,
)
from vqtok.ops.range_coder import RangeDecoder, RangeEncoder

MAX_BATCH = 256
MIX_RATE = 2
FIRST_WEIGHT = 52429
"""Of the network, in 2**-16; the counters' are 0."""


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


class Encoder(_Run):
    def run(self) -> RangeEncoder:
        self.coder = RangeEncoder()
        self.run_plane()
        return self.coder

    def outcome(self, weights: NDArray[np.int64], place: tuple[int, int], level: int) -> int:
        known = self.known(place, level)
        self.coder.symbol(int(weights[:known].sum()), int(weights[known]), int(weights.sum()))
        return known


class Decoder(_Run):
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


class _Mixed(_Run):
    """Outcomes bit after bit, each predicted by the network and by counters, which learn."""

    def __init__(
        self, prior: Networks, planes: Planes, q: int, coder: RangeEncoder | RangeDecoder
    ) -> None:
        super().__init__(prior, planes, q)
        self._coder = coder
        self.counters = Counters(q)
        self.weights = [0] * self.counters.models + [FIRST_WEIGHT]

    def outcome(self, weights: NDArray[np.int64], place: tuple[int, int], level: int) -> int:
        groups = self.network.groups
        most = self.network.group_size if level or groups is None else len(groups.bias)
        if not level or groups is None:
            self.counters.begin(contexts_at(self.planes[: self.q + 1], *place))
        known = 0 if self.fills else self.known(place, level)
        low, total = 0, int(weights.sum())
        for rest in reversed(range((most - 1).bit_length())):
            middle = low + (1 << rest)
            of_one = int(weights[middle : middle + (1 << rest)].sum())
            counters = self.counters.next()
            bit = 0
            if of_one:
                inputs = [*(c.input for c in counters), stretch((of_one << 16) // total)]
                bit = self.bit(inputs, int(known >= middle))
                for counter in counters:
                    counter.learn(bit)
            self.counters.move(bit)
            low, total = (middle, of_one) if bit else (low, total - of_one)
        return low

    def bit(self, inputs: list[int], value: int) -> int:
        one = squash(sum(map(int.__mul__, self.weights, inputs)) + 32768 >> 16)
        value = self._coder.bit(one, value)
        error = (65536 if value else 0) - one
        for m, given in enumerate(inputs):
            self.weights[m] = limited(self.weights[m] + (given * MIX_RATE * error + 32768 >> 16))
        return value


class MixedEncoder(_Mixed):
    def __init__(self, prior: Networks, planes: Planes, q: int) -> None:
        self.coder = RangeEncoder()
        super().__init__(prior, planes, q, self.coder)

    def run(self) -> RangeEncoder:
        self.run_plane()
        return self.coder


class MixedDecoder(_Mixed):
    fills = True

    def __init__(self, prior: Networks, planes: Planes, q: int, stream: bytes) -> None:
        self.coder = RangeDecoder(stream)
        super().__init__(prior, planes, q, self.coder)

    def run(self) -> RangeDecoder:
        self.run_plane()
        return self.coder


class Chooser(_Run):
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
        best = costs.argmin(1)
        if self.wanted.next_embeddings is not None:
            best = self.look_ahead(targets, costs, self.wanted.next_embeddings.astype(np.int64))
        self.planes[self.q][rows, columns] = self.order[best]

    def look_ahead(
        self, targets: NDArray[np.int64], costs: NDArray[np.int64], following: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Which of the candidates is best once the next codebook has coded what it leaves."""
        limit = (1 << value_bits(targets.shape[1])) - 1
        candidates = np.argsort(costs, axis=1, kind="stable")[:, :LOOK_AHEAD]
        left = (targets[:, None] - self.embeddings[candidates]).clip(-limit, limit)
        fee = self.wanted.weight * NEXT_STEPS >> self.wanted.weight_shift
        gain = ((following**2).sum(1) - 2 * left @ following.T).min(-1) + fee
        then = np.minimum(gain, 0)
        best = (np.take_along_axis(costs, candidates, 1) + then).argmin(1)
        found: NDArray[np.int64] = candidates[np.arange(len(best)), best]
        return found


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


class Weigher(_Run):
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
