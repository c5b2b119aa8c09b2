from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from torch import Tensor

from vqtok.tokens.prior import Prior
from vqtok.training.prior.grids import Grids
from vqtok.training.prior.plan import NetworkPlan, PriorPlan
from vqtok.training.prior.twin import FloatTwin, balanced_order

SIZES = (12, 30)


def plan(groups: int) -> PriorPlan:
    own = ((0, 0, -1), (0, -1, 0))
    later = ((0, 0, 0), (0, 1, 0), (1, 0, -1))
    networks = (NetworkPlan(own, (16, 8), 0), NetworkPlan(later, (16,), groups))
    return PriorPlan(SIZES, "image", 4, networks)


def twin_and_grids(groups: int) -> tuple[FloatTwin, Grids, list[np.ndarray]]:
    torch.manual_seed(0)
    twin = FloatTwin(plan(groups), [torch.randn(size, 6) for size in SIZES])
    rng = np.random.default_rng(1)
    samples = [
        np.stack([rng.integers(0, size, shape) for size in SIZES], axis=-1)
        for shape in [(5, 4), (3, 6)]
    ]
    return twin, Grids(samples, SIZES), samples


def outputs_of(layer: torch.nn.Linear, x: Tensor) -> Tensor:
    return (x.double() @ layer.weight.double().T + layer.bias.double()).float()


@pytest.mark.parametrize("groups", [0, 4])
def test_bits_are_those_of_a_softmax_over_all_codes(groups: int) -> None:
    """With the definition written out: every context by hand, every code's probability."""
    twin, grids, samples = twin_and_grids(groups)
    index = torch.arange(len(grids))
    starts = (0, SIZES[0] + 1)
    for q, network in enumerate(twin.networks):
        found = twin.bits(grids, index, q)
        place = 0
        for sample in samples:
            for a, b in np.ndindex(*sample.shape[:2]):
                rows = []
                for c, da, db in network.plan.contexts:
                    y, x = a + da, b + db
                    inside = 0 <= y < sample.shape[0] and 0 <= x < sample.shape[1]
                    rows.append(starts[c] + (int(sample[y, x, c]) if inside else SIZES[c]))
                x = twin.embeddings[rows].flatten()
                for layer in network.hidden:
                    x = outputs_of(layer, x).clamp(0, 127 / 64)
                outputs = outputs_of(network.output, x).double()
                if network.groups is None:
                    probabilities = torch.softmax(outputs * math.log(2), 0)
                else:
                    group = torch.softmax(outputs_of(network.groups, x).double() * math.log(2), 0)
                    members = outputs.split(network.members)
                    parts = [torch.softmax(part * math.log(2), 0) for part in members]
                    sorted_ = torch.cat([g * p for g, p in zip(group, parts, strict=True)])
                    probabilities = torch.empty_like(sorted_)
                    probabilities[network.order] = sorted_
                assert float(probabilities.detach().sum()) == pytest.approx(1)
                code = sample[a, b, q]
                expected = -math.log2(float(probabilities[code].detach()))
                assert float(found[place].detach()) == pytest.approx(expected, abs=1e-4)
                place += 1


@pytest.mark.parametrize("groups", [0, 4])
def test_it_starts_from_plain_statistics(groups: int) -> None:
    twin, grids, _ = twin_and_grids(groups)
    for q, (network, size) in enumerate(zip(twin.networks, SIZES, strict=True)):
        counts = torch.randint(0, 1000, (size,), generator=torch.Generator().manual_seed(q))
        network.start_from(counts)
        with torch.no_grad():
            for layer in network.layers()[len(network.hidden) :]:
                layer.weight.zero_()
            found = twin.bits(grids, torch.arange(len(grids)), q)
        share = (counts + 1) / (counts + 1).sum()
        expected = -share.log2()[grids.codes(torch.arange(len(grids)), q)]
        assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("groups", [0, 4])
def test_gradients_agree_with_finite_differences(groups: int) -> None:
    twin, grids, _ = twin_and_grids(groups)
    index = torch.arange(len(grids))
    twin.double()
    for q, network in enumerate(twin.networks):
        weight = network.output.weight
        loss = twin.bits(grids, index, q).double().mean()
        (gradient,) = torch.autograd.grad(loss, weight)
        direction = torch.randn_like(weight)
        with torch.no_grad():
            costs = []
            for step in (1e-2, -1e-2):
                weight.add_(step * direction)
                costs.append(float(twin.bits(grids, index, q).double().mean()))
                weight.add_(-step * direction)
        expected = (costs[0] - costs[1]) / 2e-2
        assert float((gradient * direction).sum()) == pytest.approx(expected, rel=2e-2, abs=1e-4)


@pytest.mark.parametrize("groups", [0, 4])
def test_the_tensors_are_integers_of_the_promised_shapes(groups: int) -> None:
    twin, _, _ = twin_and_grids(groups)
    twin.round()
    tensors = twin.tensors()
    assert {name: (str(value.dtype), value.shape) for name, value in tensors.items()} == {
        "embedding.0": ("uint8", (13, 4)),
        "embedding.1": ("uint8", (31, 4)),
        "0.context": ("int32", (2, 3)),
        "0.hidden.0.weight": ("int8", (16, 8)),
        "0.hidden.0.bias": ("int32", (16,)),
        "0.hidden.1.weight": ("int8", (8, 16)),
        "0.hidden.1.bias": ("int32", (8,)),
        "0.output.weight": ("int8", (12, 8)),
        "0.output.bias": ("int32", (12,)),
        "0.shifts": ("int32", (3,)),
        "1.context": ("int32", (3, 3)),
        "1.hidden.0.weight": ("int8", (16, 12)),
        "1.hidden.0.bias": ("int32", (16,)),
        "1.output.weight": ("int8", (30, 16)),
        "1.output.bias": ("int32", (30,)),
        "1.shifts": ("int32", (3,) if groups else (2,)),
        **(
            {
                "1.groups.weight": ("int8", (4, 16)),
                "1.groups.bias": ("int32", (4,)),
                "1.order": ("int32", (30,)),
            }
            if groups
            else {}
        ),
    }
    file = save(tensors, {"vqtok": "x" * 1000})
    assert len(file) <= plan(groups).num_bytes < len(file) + 1000
    assert all(np.abs(v).max() <= 127 for name, v in tensors.items() if "weight" in name)
    assert max(tensors[f"embedding.{c}"].max() for c in (0, 1)) <= 127


@pytest.mark.parametrize("groups", [0, 4])
def test_the_integer_prior_says_what_the_rounded_twin_says(groups: int) -> None:
    twin, grids, samples = twin_and_grids(groups)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.5)  # so that activations reach their ceiling and codes differ
    twin.clip()
    twin.round()
    form = {"codebook_sizes": SIZES, "modality": "image", "tokenizer": "0" * 64}
    prior = Prior(twin.tensors(), **form)
    costs = np.concatenate([prior.costs(sample).reshape(-1, 2) for sample in samples])
    for q in range(2):
        with torch.no_grad():
            bits = twin.bits(grids, torch.arange(len(grids)), q).double().numpy()
        assert bits.std() > 0.2
        # outputs are cut to 1/32 of a bit, once or (groups) twice
        assert np.abs(costs[:, q] - bits).max() < 0.07
        assert costs[:, q].mean() == pytest.approx(bits.mean(), abs=0.02)


@pytest.mark.parametrize(("codes", "members"), [(30, 8), (64, 8), (17, 16), (5, 5)])
def test_groups_hold_neighbours(codes: int, members: int) -> None:
    vectors = torch.randn(codes, 3, generator=torch.Generator().manual_seed(0))
    order = balanced_order(vectors, members)
    assert sorted(order.tolist()) == list(range(codes))
    if codes > 2 * members:
        spread = torch.stack([vectors[part].var(0).sum() for part in order.split(members)[:-1]])
        assert spread.mean() < 0.7 * vectors.var(0).sum()
