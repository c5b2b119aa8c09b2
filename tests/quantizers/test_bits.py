"""LFQ and BSQ against their definitions over the whole codebook of 2^bits."""

import math

import pytest
import torch
import torch.nn.functional as F

from vqtok.quantizers import BSQ, LFQ


def every_code(bits, size):
    values = torch.arange(1 << bits)
    return size * (2.0 * ((values[:, None] >> torch.arange(bits)) & 1) - 1)


@pytest.mark.parametrize(("kind", "bits"), [(LFQ, 5), (BSQ, 5), (LFQ, 1), (BSQ, 8)])
def test_codes_and_losses_are_those_of_the_whole_codebook(kind, bits):
    """With all bits in one group nothing is approximated."""
    quantizer = kind(bits, temperature=0.7).train()
    x = torch.randn(200, bits, requires_grad=True)
    result = quantizer(x)
    wide = x.detach().double().requires_grad_(True)
    points = F.normalize(wide, dim=-1) if kind is BSQ else wide
    table = every_code(bits, bits**-0.5 if kind is BSQ else 1.0).double()
    distance = (points[:, None] - table).square().sum(-1)
    assert torch.equal(result.codes[:, 0], distance.argmin(1))
    torch.testing.assert_close(result.quantized, table[result.codes[:, 0]].float())
    share = torch.softmax(-distance / 0.7, dim=1)
    expected = {
        "commitment": (points - table[result.codes[:, 0]]).square().mean(),
        "entropy": torch.special.entr(share).sum(1).mean(),
        "diversity": bits * math.log(2) - torch.special.entr(share.mean(0)).sum(),
    }
    assert result.losses.keys() == expected.keys()
    for name, loss in expected.items():
        torch.testing.assert_close(result.losses[name].double(), loss, rtol=1e-4, atol=1e-5)
        (gradient,) = torch.autograd.grad(result.losses[name], x, retain_graph=True)
        (wanted,) = torch.autograd.grad(loss, wide, retain_graph=True)
        torch.testing.assert_close(gradient.double(), wanted, rtol=1e-3, atol=1e-6)


def test_groups_bound_the_joint_diversity_from_below():
    x = torch.randn(500, 8)
    x[:, 1] = x[:, 0]
    missing = [
        float(LFQ(8, temperature=0.5, group_bits=size).train()(x).losses["diversity"])
        for size in (1, 2, 4, 8)
    ]
    assert missing == sorted(missing)
    assert missing[1] > missing[0] + 0.1  # only a group sees that two bits are the same


@pytest.mark.parametrize("kind", [LFQ, BSQ])
def test_63_bits_fit(kind):
    quantizer = kind(63).train()
    x = torch.randn(300, 63)
    result = quantizer(x)
    assert quantizer.codebook_sizes == (2**63,)
    for row in range(300):
        code = sum(1 << bit for bit in range(63) if x[row, bit] > 0)
        assert int(result.codes[row, 0]) == code
    assert torch.equal(quantizer.embed(result.codes), result.quantized)
    assert result.losses["diversity"].isfinite()
    top = torch.tensor([[2**63 - 1], [0]])
    assert (quantizer.embed(top)[0] > 0).all()
    assert (quantizer.embed(top)[1] < 0).all()
    with pytest.raises(ValueError, match="to fit an int64 code"):
        kind(64)


def test_zero_is_negative():
    assert LFQ(3).eval()(torch.zeros(1, 3)).codes.tolist() == [[0]]
