"""The float twin of an integer prior: the same networks, trained, then rounded.

Real numbers and integers belong together by fixed scales. An activation of n (0 to 127) stands for
n / 64, an embedding of n for (n - 64) / 64, a weight of n for n / 2^p with p chosen for each layer,
so that shifting a layer's integer sums right by p gives its activations. Outputs are in bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from vqtok.training.prior.grids import Grids
from vqtok.training.prior.plan import NetworkPlan, PriorPlan

UNIT = 64
"""Integer steps of an activation or embedding to 1."""
_TOP = 127 / UNIT
OUTPUT_SHIFT = 1  # UNIT * 2^p steps of an output to a bit; the integer softmax counts 32 * 2^shift


class Layer(nn.Linear):
    """A linear layer whose weights can be rounded to int8 with one power of two as their scale."""

    exponent: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        """float32 [..., in] to [..., out], with rounded weights once ``exponent`` is set."""
        return F.linear(x, self.rounded_weight(), self.bias)

    def rounded_weight(self) -> Tensor:
        """[out, in], as it is until ``exponent`` is set."""
        if self.exponent is None:
            return self.weight
        return _rounded(self.weight, 2.0**self.exponent, -127, 127)

    def choose_exponent(self) -> None:
        """Take the scale that changes the weights least."""
        weight = self.weight.detach()
        errors = {
            p: float((weight - _rounded(weight, 2.0**p, -127, 127)).square().sum())
            for p in range(1, 13)
        }
        self.exponent = min(errors, key=errors.__getitem__)

    def integers(self, zero: int = 0) -> tuple[NDArray[np.int8], NDArray[np.int32]]:
        """Weights [out, in] and biases [out]; ``zero``: what is added to each of its inputs."""
        assert self.exponent is not None
        scale = 2.0**self.exponent
        weight = (self.weight.detach().double() * scale).round().clamp(-127, 127)
        bias = (self.bias.detach().double() * scale * UNIT).round() - zero * weight.sum(1)
        bias = bias.clamp(-(2**30), 2**30)
        return weight.to(torch.int8).numpy(), bias.to(torch.int32).numpy()


class Network(nn.Module):
    """Predicts the codes of one codebook from the embeddings of its contexts."""

    def __init__(self, plan: NetworkPlan, codebook_size: int, width: int) -> None:
        super().__init__()
        self.plan = plan
        widths = (len(plan.contexts) * width, *plan.hidden)
        self.hidden: list[Layer] = []
        for index, (a, b) in enumerate(pairwise(widths)):
            self.hidden.append(Layer(a, b))
            self.add_module(f"hidden{index}", self.hidden[-1])
        self.output = Layer(widths[-1], codebook_size)
        self.groups = Layer(widths[-1], plan.groups) if plan.groups else None
        self.members = -(-codebook_size // plan.groups) if plan.groups else codebook_size
        self.order = torch.arange(codebook_size)  # the code at each place
        self.place = self.order  # the place of each code

    def layers(self) -> list[Layer]:
        """In the order of the file's shifts."""
        last = [self.output] if self.groups is None else [self.output, self.groups]
        return [*self.hidden, *last]

    def reorder(self, order: Tensor) -> None:
        """Cut the codes into groups along a permutation [K] of them."""
        self.order = order
        self.place = torch.argsort(order)

    @torch.no_grad()
    def start_from(self, counts: Tensor) -> None:
        """Begin with what plain statistics say: counts [K] of the codes."""
        share = (counts.double() + 1) / (counts.double() + 1).sum()
        self.output.bias.copy_(share.log2()[self.order])
        if self.groups is not None:
            groups = torch.zeros(len(self.groups.bias), dtype=torch.float64)
            groups.index_add_(0, self.place // self.members, share)
            self.groups.bias.copy_(groups.log2())
        for layer in self.layers()[len(self.hidden) :]:
            layer.weight.mul_(0.1)

    def bits(self, embedded: Tensor, codes: Tensor) -> Tensor:
        """float32 [B], what the codes [B] cost after contexts embedded as [B, S * W]."""
        x = embedded
        for layer in self.hidden:
            x = layer(x).clamp(0, _TOP)
            if layer.exponent is not None:
                x = _rounded(x, UNIT, 0, 127)
        place = self.place[codes]
        if self.groups is None:
            return _cost(_nats(self.output, x), place)
        group = place // self.members
        cost = _cost(_nats(self.groups, x), group)
        return cost + _cost(*self._within(x, group, place))

    def _within(self, x: Tensor, group: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [B, M] of the members of a group, and which of them is meant."""
        rows = group[:, None] * self.members + torch.arange(self.members)
        missing = rows >= len(self.order)
        rows = rows.clamp_max(len(self.order) - 1)
        weight = F.embedding(rows, self.output.rounded_weight())
        outputs = torch.einsum("bmh,bh->bm", weight, x) + self.output.bias[rows]
        outputs = outputs.masked_fill(missing, -torch.inf)
        return outputs * math.log(2), place % self.members


class FloatTwin(nn.Module):
    """The networks of all codebooks and the embeddings they share.

    Args:
        plan: see :class:`PriorPlan`.
        vectors: float [K, D] for each codebook: what its codes mean, to start the embeddings (and
            the groups of a large codebook) from; similar codes have similar vectors.
    """

    def __init__(self, plan: PriorPlan, vectors: Sequence[Tensor]) -> None:
        super().__init__()
        self.plan = plan
        self.rounded = False
        starts = np.cumsum([0, *(size + 1 for size in plan.codebook_sizes)])
        self._starts = [int(start) for start in starts[:-1]]
        self.embeddings = nn.Parameter(torch.cat([_start(v, plan.width) for v in vectors]))
        self.networks: list[Network] = []
        for q, (each, size) in enumerate(zip(plan.networks, plan.codebook_sizes, strict=True)):
            network = Network(each, size, plan.width)
            if network.groups is not None:
                network.reorder(balanced_order(vectors[q], network.members))
            self.networks.append(network)
            self.add_module(f"network{q}", network)

    def bits(self, grids: Grids, index: Tensor, q: int) -> Tensor:
        """float32 [B], the cost of the codes of codebook ``q`` at the positions ``index``."""
        network = self.networks[q]
        contexts = network.plan.contexts
        starts = torch.tensor([self._starts[codebook] for codebook, _, _ in contexts])
        table: Tensor = self.embeddings
        if self.rounded:
            table = _rounded(table, UNIT, -64, 63)
        embedded = F.embedding(grids.around(index, contexts) + starts, table).flatten(1)
        return network.bits(embedded, grids.codes(index, q))

    def table(self, c: int) -> Tensor:
        """float32 [K_c + 1, W], the embeddings of codebook ``c``, the last that of the border."""
        return self.embeddings[self._starts[c] :][: self.plan.codebook_sizes[c] + 1]

    @torch.no_grad()
    def clip(self) -> None:
        """Keep embeddings within what integers hold."""
        self.embeddings.clamp_(-1, 63 / UNIT)

    def round(self) -> None:
        """From now on compute with rounded numbers; gradients pass through the rounding."""
        self.rounded = True
        for network in self.networks:
            for layer in network.layers():
                layer.choose_exponent()

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """The integers, by their names in ``prior.safetensors``."""
        found: dict[str, NDArray[np.generic]] = {}
        for c in sorted({c for plan in self.plan.networks for c, _, _ in plan.contexts}):
            rows = (self.table(c).detach().double() * UNIT).round().clamp(-64, 63) + UNIT
            found[f"embedding.{c}"] = rows.to(torch.uint8).numpy()
        for q, network in enumerate(self.networks):
            found |= {f"{q}.{name}": value for name, value in _network_tensors(network).items()}
        return found


def balanced_order(vectors: Tensor, members: int) -> Tensor:
    """A permutation of the codes in which runs of ``members`` are near each other.

    Halves the codes, over and over, along the direction in which their vectors vary most.
    """

    def split(codes: Tensor) -> list[Tensor]:
        groups = -(-len(codes) // members)
        if groups == 1:
            return [codes]
        centred = vectors[codes].double() - vectors[codes].double().mean(0)
        direction = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]
        codes = codes[torch.argsort(centred @ direction, stable=True)]
        middle = (groups // 2) * members
        return split(codes[:middle]) + split(codes[middle:])

    return torch.cat(split(torch.arange(len(vectors))))


def _network_tensors(network: Network) -> dict[str, NDArray[np.generic]]:
    found: dict[str, NDArray[np.generic]] = {
        "context": np.array(network.plan.contexts, np.int32).reshape(-1, 3)
    }
    named = [(f"hidden.{index}", layer) for index, layer in enumerate(network.hidden)]
    named.append(("output", network.output))
    if network.groups is not None:
        named.append(("groups", network.groups))
        found["order"] = network.order.to(torch.int32).numpy()
    shifts = []
    for name, layer in named:
        assert layer.exponent is not None
        inner = name.startswith("hidden")
        shifts.append(layer.exponent + (0 if inner else OUTPUT_SHIFT))
        weight, bias = layer.integers(UNIT if name == "hidden.0" else 0)
        found |= {f"{name}.weight": weight, f"{name}.bias": bias}
    found["shifts"] = np.array(shifts, np.int32)
    return found


class _Cost(torch.autograd.Function):
    """Bits of codes [B] under outputs [B, K] in nats; half the time of cross_entropy."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, codes: Tensor) -> Tensor:
        logarithms = torch.log_softmax(outputs, 1, dtype=torch.float32)
        ctx.save_for_backward(logarithms, codes)
        ctx.dtype = outputs.dtype
        return -logarithms.gather(1, codes[:, None])[:, 0] / math.log(2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logarithms, codes = ctx.saved_tensors
        result = logarithms.exp()
        result[torch.arange(len(codes)), codes] -= 1
        return (result * (gradient / math.log(2))[:, None]).to(ctx.dtype), None


def _nats(layer: Layer, x: Tensor) -> Tensor:
    """The layer's outputs, which are in bits, in nats: scaling x is cheaper than scaling them."""
    bits = math.log(2)
    return F.linear(x * bits, layer.rounded_weight(), layer.bias * bits)


def _cost(outputs: Tensor, codes: Tensor) -> Tensor:
    cost: Tensor = _Cost.apply(outputs, codes)  # type: ignore[no-untyped-call]
    return cost


def _rounded(x: Tensor, scale: float, low: int, high: int) -> Tensor:
    """The multiple of 1 / scale in [low, high] / scale nearest to x; its gradient is that of x."""
    scaled = x * scale
    return x + ((scaled + 0.5).floor().clamp(low, high) / scale - x).detach()


def _start(vectors: Tensor, width: int) -> Tensor:
    """float32 [K + 1, W] from vectors [K, D]: their principal components; zero for the border."""
    centred = (vectors - vectors.mean(0)).float()
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:width]
    components = centred @ axes.T
    scale = 0.4 / components.std(correction=0).clamp_min(1e-6)
    table = torch.zeros(len(vectors) + 1, width)
    table[:-1, : components.shape[1]] = (components * scale).clamp(-0.9, 0.9)
    if components.shape[1] < width:
        noise = torch.randn(len(vectors), width - components.shape[1])
        table[:-1, components.shape[1] :] = 0.1 * noise
    return table
