"""A learned prior over codes, in integers: evaluated natively, or else by prior_numpy.

FORMAT.md of vqtok.tokens defines the model. Nothing here is checked: see vqtok.tokens.prior.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtok.ops import native

Planes = NDArray[np.uint32]

WEIGHT_BITS = 19
STEPS_PER_BIT = 32
MAX_STEPS = WEIGHT_BITS * STEPS_PER_BIT
LOOK_AHEAD = 4
NEXT_STEPS = 6 * STEPS_PER_BIT
"""What a code of the next codebook is taken to cost in looking ahead, in 1/32 bit."""
MAX_WEIGHT = 1 << 21
"""Of 1/32 bit in a choice of codes."""


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
    ``next_embeddings``: int16 [K', D] of the codebook that codes what is left: then the LOOK_AHEAD
    codes that are worth most are compared by what its nearest embedding would leave, at 6 bits, or
    by what there is without it.
    """

    targets: NDArray[np.int16]
    embeddings: NDArray[np.int16]
    weight: int
    weight_shift: int
    first_row: int = 0
    next_embeddings: NDArray[np.int16] | None = None


@dataclass
class Networks:
    """A prior. ``embeddings``: of each codebook that a context names, uint8 [K + 1, width]. All
    arrays must be contiguous.
    """

    embeddings: Mapping[int, NDArray[np.uint8]]
    networks: tuple[Network, ...]
    _native: Any = field(default=None, repr=False)

    def encode(self, planes: Planes, *, mixed: bool) -> list[bytes]:
        """The streams of uint32 [q, rows, columns], contiguous, codes in range.

        ``mixed``: with what counters learn from each plane, not by the networks alone.
        """
        from vqtok.ops import prior_numpy

        module = native.load()
        if module is None:
            encoder = prior_numpy.MixedEncoder if mixed else prior_numpy.Encoder
            return [encoder(self, planes, q).run().finish() for q in range(len(planes))]
        streams: list[bytes] = module.prior_encode_cpu(
            *(self._loaded(module), planes.ctypes.data, *planes.shape),
            *(mixed, native.num_threads(), native.isa()),
        )
        return streams

    def decode(self, planes: Planes, q: int, stream: bytes, *, mixed: bool) -> bool:
        """Fill plane q of [Q, rows, columns]; False if bytes of the stream were left over."""
        from vqtok.ops import prior_numpy

        module = native.load()
        if module is None:
            decoder = prior_numpy.MixedDecoder if mixed else prior_numpy.Decoder
            return not decoder(self, planes, q, stream).run().has_rest
        whole: bool = module.prior_decode_cpu(
            *(self._loaded(module), planes.ctypes.data, q, *planes.shape[1:], stream),
            *(mixed, native.isa()),
        )
        return whole

    def choose(self, planes: Planes, q: int, wanted: Wanted) -> None:
        """Fill plane q of [Q, rows, columns], contiguous: in coding order, each code is the one of
        least squared distance plus weighted bits, given those before it.
        """
        from vqtok.ops import prior_numpy

        module = native.load()
        if module is None:
            prior_numpy.Chooser(self, planes, q, wanted).run_plane(wanted.first_row)
            return
        following = wanted.next_embeddings
        module.prior_choose_cpu(
            *(self._loaded(module), planes.ctypes.data, q, *planes.shape[1:]),
            *(wanted.targets.ctypes.data, wanted.embeddings.ctypes.data),
            *(wanted.targets.shape[-1], wanted.weight, wanted.weight_shift),
            *((1 << value_bits(wanted.targets.shape[-1])) - 1, wanted.first_row),
            *((0, 0) if following is None else (following.ctypes.data, len(following))),
            native.isa(),
        )

    def weights(self, planes: Planes) -> Planes:
        """uint32 [q, rows, columns, 4]: for each code the weight of its group, of all groups (1 of
        1 for a single level), its own in the group, and of all in the group.
        """
        from vqtok.ops import prior_numpy

        found = np.empty((*planes.shape, 4), np.uint32)
        module = native.load()
        for q in range(len(planes)):
            if module is None:
                prior_numpy.Weigher(self, planes, q, found[q]).run()
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
