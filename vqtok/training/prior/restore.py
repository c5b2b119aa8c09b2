"""A float twin out of an integer prior, to train that on."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from vqtok.errors import UsageError
from vqtok.tokens.prior import Prior
from vqtok.training.prior.grids import MARGINS
from vqtok.training.prior.plan import NetworkPlan, PriorPlan
from vqtok.training.prior.twin import OUTPUT_SHIFT, UNIT, FloatTwin, Layer, Network


def plan_of(prior: Prior) -> PriorPlan:
    """The plan that a prior was made from.

    Raises:
        UsageError: it has another form than those that are trained here.
    """
    tensors = prior.tensors
    widths = {table.shape[1] for name, table in tensors.items() if name.startswith("embedding.")}
    networks = []
    for q in range(len(prior.codebook_sizes)):
        contexts = tuple((int(c), int(a), int(b)) for c, a, b in tensors[f"{q}.context"])
        layers = len(tensors[f"{q}.shifts"]) - 1 - (f"{q}.groups.bias" in tensors)
        hidden = tuple(len(tensors[f"{q}.hidden.{index}.bias"]) for index in range(layers))
        networks.append(NetworkPlan(contexts, hidden, len(tensors.get(f"{q}.groups.bias", ()))))
    too_far = any(
        abs(d) > most
        for plan in networks
        for _, *offsets in plan.contexts
        for d, most in zip(offsets, MARGINS, strict=True)
    )
    if len(widths) != 1 or too_far:
        raise UsageError(
            "this prior cannot be trained on: it has embeddings of several widths, or contexts "
            f"more than {MARGINS[0]} rows or {MARGINS[1]} columns away"
        )
    return PriorPlan(prior.codebook_sizes, prior.modality, widths.pop(), tuple(networks))


@torch.no_grad()
def restore(twin: FloatTwin, prior: Prior) -> None:
    """Give a twin of :func:`plan_of` the numbers of the prior."""
    tensors = prior.tensors
    for c in range(len(prior.codebook_sizes)):
        if (table := tensors.get(f"embedding.{c}")) is not None:
            twin.table(c).copy_((_real(table) - UNIT) / UNIT)
    for q, network in enumerate(twin.networks):
        if network.groups is not None:
            network.reorder(torch.from_numpy(tensors[f"{q}.order"].astype(np.int64)))
        for (name, layer), shift in zip(
            _named(network, f"{q}."), tensors[f"{q}.shifts"].tolist(), strict=True
        ):
            inner = ".hidden." in name
            exponent = shift - (0 if inner else OUTPUT_SHIFT)
            weight, bias = _real(tensors[f"{name}.weight"]), _real(tensors[f"{name}.bias"])
            if name.endswith("hidden.0"):  # its inputs are counted from UNIT
                bias = bias + UNIT * weight.sum(1)
            layer.weight.copy_(weight / 2.0**exponent)
            layer.bias.copy_(bias / (2.0**exponent * UNIT))


def _named(network: Network, start: str) -> list[tuple[str, Layer]]:
    """The layers by their names in the file, in the order of their shifts."""
    names = [f"{start}hidden.{index}" for index in range(len(network.hidden))]
    return list(zip([*names, f"{start}output", f"{start}groups"], network.layers(), strict=False))


def _real(values: NDArray[np.generic]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float64))
