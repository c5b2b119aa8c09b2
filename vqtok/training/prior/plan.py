"""What a prior looks at and how wide it is, for any codebooks and any size of file."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from vqtok.errors import UsageError
from vqtok.ops.entropy import MAX_CODEBOOK_SIZE

Context = tuple[int, int, int]
"""(codebook, offset along the first axis, offset along the second) from the code predicted."""

MAX_OUTCOMES = 4096
"""Most codes that one softmax tells apart; a larger codebook is cut into groups."""
DEFAULT_BYTES = 1_000_000
_FILE_BYTES, _TENSOR_BYTES = 1_500, 96  # of the header: in all, and for each tensor

Offsets = tuple[tuple[int, int], ...]


def _frames(first: int, last: int) -> Offsets:
    """From the nearest on."""
    return tuple((a, 0) for a in sorted(range(first, last + 1), key=abs))


# Of the codebook itself: the first, and others.
_OWN: dict[str, tuple[Offsets, Offsets]] = {
    "image": (
        ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0)),
        ((0, -1), (-1, 0), (-1, -1), (-1, 1)),
    ),
    "audio": ((*_frames(-8, -1), (0, -1)), (*_frames(-4, -1), (0, -1))),
}
# An earlier codebook is known everywhere, so contexts may also lie ahead: codebook q - 1, then
# q - 2, and so on; the last entry stands for all that are earlier still.
_EARLIER: dict[str, tuple[Offsets, ...]] = {
    "image": (
        ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)),
        ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)),
        ((0, 0),),
    ),
    "audio": (_frames(-3, 3), _frames(-1, 1), _frames(0, 0)),
}
# How much wider than the others' the hidden layers of the first codebook are: of sound, it is the
# one of which most can be told.
_LEAD = {"image": 1.0, "audio": 1.5}
# Widths of embeddings, of the hidden layers, from generous to tiny: the first that fits is taken.
_WIDTHS = (
    (48, 256, 192),
    (32, 256, 128),
    (32, 192, 128),
    (32, 160, 128),
    (32, 128, 128),
    (32, 96, 96),
    (32, 96, 64),
    (32, 64, 64),
    (24, 96, 64),
    (16, 96, 64),
    (16, 64, 64),
    (16, 128, 48),
    (16, 96, 48),
    (16, 76, 48),
    (16, 64, 48),
    (16, 64, 32),
    (8, 32, 32),
    (8, 32, 16),
    (4, 16, 8),
)


@dataclass(frozen=True)
class NetworkPlan:
    """The network of one codebook.

    Attributes:
        contexts: (codebook, da, db) of each code that it sees.
        hidden: widths of the hidden layers.
        groups: into how many groups the codes are cut; 0 where one softmax does.
    """

    contexts: tuple[Context, ...]
    hidden: tuple[int, ...]
    groups: int


@dataclass(frozen=True)
class PriorPlan:
    """A prior before it is trained.

    Attributes:
        codebook_sizes: K of each of the Q codebooks.
        modality: "image" or "audio".
        width: of the embeddings.
        networks: one for each codebook.
    """

    codebook_sizes: tuple[int, ...]
    modality: str
    width: int
    networks: tuple[NetworkPlan, ...]

    @property
    def num_bytes(self) -> int:
        """What the file will hardly exceed."""
        used = {context[0] for network in self.networks for context in network.contexts}
        total = _FILE_BYTES + sum((self.codebook_sizes[c] + 1) * self.width for c in used)
        total += _TENSOR_BYTES * len(used)
        for size, network in zip(self.codebook_sizes, self.networks, strict=True):
            total += _TENSOR_BYTES * (2 * len(network.hidden) + (7 if network.groups else 4))
            widths = (len(network.contexts) * self.width, *network.hidden)
            total += sum((a + 4) * b for a, b in pairwise(widths))
            total += (size + network.groups) * (widths[-1] + 4) + 4 * len(widths)
            total += 12 * len(network.contexts) + (4 * size + 4 if network.groups else 0)
        return total


def plan_prior(
    codebook_sizes: tuple[int, ...], modality: str, max_bytes: int = DEFAULT_BYTES
) -> PriorPlan:
    """The largest prior of the usual form whose tensors fit into ``max_bytes``.

    Args:
        codebook_sizes: K of each codebook.
        modality: "image" or "audio".
        max_bytes: of the file.

    Raises:
        UsageError: not even the smallest fits, or a codebook has more codes than a prior can.
    """
    if max(codebook_sizes) > MAX_CODEBOOK_SIZE:
        raise UsageError(
            f"a codebook of {max(codebook_sizes):,} codes is too large for a prior, which can have "
            f"{MAX_CODEBOOK_SIZE:,}"
        )
    contexts = [contexts_of(q, modality) for q in range(len(codebook_sizes))]
    for width, *hidden in _WIDTHS:
        lead = tuple(round(each * _LEAD[modality]) for each in hidden)
        networks = tuple(
            NetworkPlan(own, tuple(hidden) if q else lead, groups_of(size))
            for q, (own, size) in enumerate(zip(contexts, codebook_sizes, strict=True))
        )
        plan = PriorPlan(tuple(codebook_sizes), modality, width, networks)
        if plan.num_bytes <= max_bytes:
            return plan
    raise UsageError(
        f"no prior for codebooks of {', '.join(f'{size:,}' for size in codebook_sizes)} codes fits "
        f"into {max_bytes:,} bytes; the smallest has {plan.num_bytes:,}"
    )


def contexts_of(q: int, modality: str) -> tuple[Context, ...]:
    """The contexts of codebook ``q``, sorted by codebook."""
    own = _OWN[modality][min(q, 1)]
    found = [(q, *offset) for offset in own]
    for back in range(1, q + 1):
        offsets = _EARLIER[modality][min(back, len(_EARLIER[modality])) - 1]
        found += [(q - back, *offset) for offset in offsets]
    return tuple(sorted(found, key=lambda context: context[0]))


def groups_of(size: int) -> int:
    """0 for a codebook that one softmax takes, else about the square root of its size."""
    if size <= MAX_OUTCOMES:
        return 0
    members = -(-size // (1 << ((size - 1).bit_length() // 2)))
    return -(-size // members)
