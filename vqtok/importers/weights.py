"""Published tensors under vqtok's names: nothing may be missing, left over or of another shape."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from vqtok.errors import DataError

# What vqtok's modules keep beside what is published: statistics of training.
_OWN = re.compile(r"(^|\.)(counts|initialized|num_batches_tracked)$")


class Weights:
    """Tensors by vqtok's names, each remembering the name that it was published under.

    Args:
        tensors: by their published names.
        rename: a published name to vqtok's, or None for what vqtok has no use for. A name that it
            does not know may stay: no place of the model has it.

    Raises:
        DataError: two tensors become one, or one that is of use is not dense.
    """

    def __init__(self, tensors: Mapping[str, Tensor], rename: Callable[[str], str | None]) -> None:
        self._tensors: dict[str, Tensor] = {}
        self._sources: dict[str, str] = {}
        for source, tensor in tensors.items():
            name = rename(source)
            if name is None:
                continue
            if name in self._tensors:
                raise DataError(f"tensors {self._sources[name]!r} and {source!r} are both {name!r}")
            if tensor.layout != torch.strided:
                raise DataError(f"tensor {source!r} is {tensor.layout}, expected a dense one")
            self._tensors[name] = tensor.detach()
            self._sources[name] = source

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise DataError(
                f"a tensor is missing: nothing in the checkpoint is {name!r}{self._beside(name)}"
            )
        return self._tensors[name]

    def _beside(self, name: str) -> str:
        """Where a missing tensor belongs, in the words of the checkpoint."""
        while name := name.rpartition(".")[0]:
            for other, source in self._sources.items():
                if other.startswith(f"{name}."):
                    return f", which belongs beside {source!r}"
        return ""

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def count(self, prefix: str) -> int:
        """How many numbers follow ``prefix`` in names: of the stages, of the blocks.

        Raises:
            DataError: they are not 0, 1, 2, ...
        """
        found = self.numbers(prefix)
        for expected, number in enumerate(found):
            if number != expected:
                raise DataError(
                    f"a part is missing: nothing in the checkpoint is {prefix}{expected}"
                )
        return len(found)

    def numbers(self, prefix: str) -> list[int]:
        """The numbers that follow ``prefix`` in names, rising."""
        start = re.compile(re.escape(prefix) + r"(\d+)\.")
        return sorted({int(match[1]) for name in self._tensors if (match := start.match(name))})

    def size(self, name: str, axis: int, multiple: int = 1) -> int:
        """The size of a tensor along an axis; DataError if it has no such axis, is empty, or has
        another size there than a multiple of ``multiple``."""
        tensor = self[name]
        if not -tensor.ndim <= axis < tensor.ndim:
            raise DataError(
                f"tensor {self._sources[name]!r} has shape {list(tensor.shape)}, too few axes"
            )
        if not tensor.shape[axis]:
            raise DataError(
                f"tensor {self._sources[name]!r} has shape {list(tensor.shape)}, nothing is in it"
            )
        if tensor.shape[axis] % multiple:
            raise DataError(
                f"tensor {self._sources[name]!r} has shape {list(tensor.shape)}: its channels are "
                f"normalised in {multiple} groups, and {tensor.shape[axis]} is no multiple of that"
            )
        return tensor.shape[axis]

    def replace(self, name: str, change: Callable[[Tensor], Tensor]) -> None:
        """Change a tensor in place of its published values."""
        self.merge(name, [name], change)

    def add(self, name: str, tensor: Tensor, made_of: str | None = None) -> None:
        """Add a tensor that is implied, perhaps by another, whose published name it gets."""
        self._tensors[name] = tensor
        self._sources[name] = name if made_of is None else self._sources[made_of]

    def rename(self, name: str, new: str) -> None:
        """Give a tensor another name."""
        self.merge(new, [name], lambda tensor: tensor)

    def drop(self, prefix: str) -> None:
        """Forget the tensors whose names begin so."""
        for name in [name for name in self._tensors if name.startswith(prefix)]:
            del self._tensors[name], self._sources[name]

    def move(self, prefix: str, new: str) -> None:
        """Give the tensors whose names begin with ``prefix`` another one."""
        for name in [name for name in self._tensors if name.startswith(prefix)]:
            self.rename(name, new + name.removeprefix(prefix))

    def renumber(self, prefix: str, change: Callable[[int], int]) -> None:
        """Give every part that a number after ``prefix`` names another number."""
        for number in self.numbers(prefix):
            self.move(f"{prefix}{number}.", f"{prefix}new{change(number)}.")
        self.move(f"{prefix}new", prefix)

    def merge(self, name: str, parts: Sequence[str], join: Callable[..., Tensor]) -> None:
        """Make one tensor of several, which are gone then."""
        tensors = [self[part] for part in parts]
        try:
            joined = join(*tensors)
        except (RuntimeError, ValueError) as error:
            sources = ", ".join(repr(self._sources[part]) for part in parts)
            raise DataError(f"tensors {sources} do not fit together: {error}") from error
        source = self._sources[parts[0]]
        for part in parts:
            del self._tensors[part], self._sources[part]
        self._tensors[name], self._sources[name] = joined, source

    def fold_weight_norm(self) -> None:
        """Make ``weight`` of every pair ``weight_g`` and ``weight_v`` (Salimans & Kingma, 2016)."""
        for name in [name for name in self._tensors if name.endswith(".weight_g")]:
            layer = name.removesuffix("_g")
            self.merge(layer, [f"{layer}_v", name], _weight_norm)

    def load_into(self, model: nn.Module) -> None:
        """Give every tensor of a model its value, in the model's precision.

        Raises:
            DataError: a tensor is missing, left over, of another shape, or not finite; the message
                names the first, as it was published.
        """
        wanted = model.state_dict()
        for name in self._tensors:
            if name not in wanted:
                raise DataError(
                    f"tensor {self._sources[name]!r} is unexpected: the model that the other "
                    "tensors describe has no place for it"
                )
        state = {name: torch.ones_like(wanted[name]) for name in wanted if self._is_own(name)}
        published = {name: place for name, place in wanted.items() if name not in state}
        self._check_shapes(published)
        for name, place in published.items():
            value = self._fitted(name, place).to(place.dtype)
            if not bool(value.isfinite().all()):
                raise DataError(f"tensor {self._sources[name]!r} holds NaN or Inf")
            state[name] = value
        model.load_state_dict(state, strict=True)

    def _is_own(self, name: str) -> bool:
        return name not in self._tensors and _OWN.search(name) is not None

    def _check_shapes(self, wanted: Mapping[str, Tensor]) -> None:
        """DataError for a missing tensor, or the first that does not fit its place.

        The sizes of a model are read from some tensors: where one of them is wrong, others do not
        fit. So the first with another number of axes comes before those of other sizes.
        """
        wrong = [name for name, place in wanted.items() if _sizes(self[name]) != _sizes(place)]
        wrong.sort(key=lambda name: len(_sizes(self[name])) == len(_sizes(wanted[name])))
        if wrong:
            raise DataError(
                f"tensor {self._sources[wrong[0]]!r} has shape {list(self[wrong[0]].shape)}, "
                f"expected {list(wanted[wrong[0]].shape)}"
            )

    def _fitted(self, name: str, place: Tensor) -> Tensor:
        """The tensor in the shape of its place, axes of size 1 aside."""
        value = self[name]
        if place.is_floating_point() and not value.is_floating_point():
            raise DataError(
                f"tensor {self._sources[name]!r} is {value.dtype}, expected floating-point numbers"
            )
        return value.reshape(place.shape)


def _sizes(tensor: Tensor) -> list[int]:
    """Of its axes, those of size 1 aside."""
    return [size for size in tensor.shape if size != 1]


def _weight_norm(direction: Tensor, length: Tensor) -> Tensor:
    # torch believes its arguments, whatever memory there is.
    expected = [*direction.shape[:1], *[1] * (direction.ndim - 1)]
    if not (direction.is_floating_point() and length.is_floating_point()):
        raise ValueError(f"they are {direction.dtype} and {length.dtype}")
    if not direction.numel() or not expected or list(length.shape) != expected:
        raise ValueError(f"shapes {list(direction.shape)} and {list(length.shape)}")
    return torch._weight_norm(direction.float(), length.float(), 0)


def substitute(name: str, rules: Sequence[tuple[str, str]]) -> str:
    """A name after every rule (regular expression, replacement), in their order."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def without_prefix(tensors: Mapping[str, Tensor], prefixes: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of a part of a larger model, under the part's own names.

    The first prefix that some name has decides; if none has any, these are all the tensors.
    """
    for prefix in prefixes:
        part = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if part:
            return part
    return dict(tensors)
