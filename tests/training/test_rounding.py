"""Shorter formats for weights: what is rounded, and what is not."""

import torch
from torch import nn

from vqtok.quantizers import ResidualQuantizer, VectorQuantizer
from vqtok.training.rounding import round_codebooks, round_to_half


def tables(quantizer):
    return [layer.embeddings for layer in quantizer.layers]


def test_half():
    model = nn.Linear(3, 2)
    model.weight.data[0, 0] = 1 + 2**-12
    round_to_half(model)
    assert model.weight[0, 0] == 1
    assert torch.equal(model.weight.half().float(), model.weight)


def test_half_keeps_what_is_out_of_range():
    model = nn.Linear(3, 2)
    model.weight.data[0, 0] = 70_001
    before = model.weight.clone()
    round_to_half(model)
    assert torch.equal(model.weight, before)


def test_codebooks():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 8), ResidualQuantizer([VectorQuantizer(256, 8) for _ in range(3)])
    )
    weight, before = model[0].weight.clone(), [table.clone() for table in tables(model[1])]
    round_codebooks(model)
    assert torch.equal(model[0].weight, weight)
    for table, old in zip(tables(model[1]), before, strict=True):
        # Three bits after the leading one: at most 1/16 of a value, or half of the least step.
        assert bool(((table - old).abs() <= (old.abs() / 16).clamp_min(2.0**-10)).all())
        assert not torch.equal(table, old)
        assert torch.equal(table.to(torch.float8_e4m3fn).float(), table)


def test_codebooks_that_would_suffer_are_kept():
    torch.manual_seed(0)
    layers = [VectorQuantizer(64, 4) for _ in range(3)]
    layers[0].embeddings.mul_(1e-3)  # below the range
    layers[1].embeddings.mul_(1e3)  # beyond it
    layers[2].embeddings.add_(30)  # far from zero beside how they differ
    quantizer = ResidualQuantizer(layers)
    before = [table.clone() for table in tables(quantizer)]
    round_codebooks(quantizer)
    assert all(torch.equal(*pair) for pair in zip(tables(quantizer), before, strict=True))
