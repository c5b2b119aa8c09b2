"""Grouped, shared, beam-searched and multi-scale quantizers against plain loops."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from vqtok.quantizers import (
    FSQ,
    BeamResidualQuantizer,
    GroupedQuantizer,
    MultiScaleQuantizer,
    ProjectedQuantizer,
    ResidualQuantizer,
    SharedResidualQuantizer,
    VectorQuantizer,
)


def trained(quantizer, shape, steps=5):
    torch.manual_seed(0)
    quantizer.train()
    for _ in range(steps):
        quantizer(torch.randn(shape))
    return quantizer.eval()


def test_groups_are_quantized_alone():
    first, second = VectorQuantizer(16, 4), FSQ([5, 5])
    quantizer = trained(GroupedQuantizer([first, second]), (300, 6))
    x = torch.randn(100, 6)
    result, parts = quantizer(x), (first(x[:, :4]), second(x[:, 4:]))
    assert torch.equal(result.codes, torch.cat([part.codes for part in parts], -1))
    assert torch.equal(result.quantized, torch.cat([part.quantized for part in parts], -1))
    only = quantizer(x, num_codebooks=1)
    assert (only.quantized[:, 4:] == 0).all()
    assert torch.equal(only.codes, result.codes[:, :1])
    commitments = GroupedQuantizer([first, VectorQuantizer(8, 2)]).eval()(x)
    mean = F.mse_loss(x, commitments.quantized)
    torch.testing.assert_close(commitments.losses["commitment"], mean)


def test_shared_levels_use_one_codebook():
    layer = VectorQuantizer(16, 3)
    quantizer = trained(SharedResidualQuantizer(layer, 3), (300, 3))
    assert set(quantizer.state_dict()) == {
        f"layers.0.{name}" for name in ("embeddings", "counts", "initialized")
    }
    plain = ResidualQuantizer([layer] * 3).eval()
    x = torch.randn(100, 3)
    assert torch.equal(quantizer(x).codes, plain(x).codes)
    assert quantizer(x).codes.shape == (100, 3)


def test_a_wide_beam_finds_the_best_sum():
    quantizer = BeamResidualQuantizer([VectorQuantizer(5, 3) for _ in range(3)], beam=25)
    trained(quantizer, (300, 3))
    tables = [layer.embeddings.double() for layer in quantizer.layers]
    combinations = list(itertools.product(range(5), repeat=3))
    sums = torch.stack([sum(t[k] for t, k in zip(tables, ks, strict=True)) for ks in combinations])
    x = torch.randn(200, 3)
    best = torch.tensor(combinations)[torch.cdist(x.double(), sums).argmin(1)]
    assert (quantizer(x).codes == best).all(-1).float().mean() > 0.99


def test_beam_beats_greedy_and_of_one_is_greedy():
    greedy = trained(ResidualQuantizer([VectorQuantizer(16, 4) for _ in range(4)]), (400, 4))
    x = torch.randn(500, 4)
    errors = []
    for beam in (1, 2, 8):
        searched = BeamResidualQuantizer([VectorQuantizer(16, 4) for _ in range(4)], beam=beam)
        searched.load_state_dict(greedy.state_dict(), strict=True)
        result = searched.eval()(x)
        errors.append(float((result.quantized - x).square().mean()))
        torch.testing.assert_close(result.losses["commitment"], torch.tensor(errors[-1]))
        if beam == 1:
            assert (result.codes == greedy(x).codes).all(-1).float().mean() > 0.99
    assert errors[0] == pytest.approx(float(greedy(x).losses["commitment"]), rel=1e-3)
    assert errors[2] < errors[1] < 0.98 * errors[0]


def test_a_beam_is_that_of_plain_lists_in_float64():
    quantizer = BeamResidualQuantizer([VectorQuantizer(16, 4) for _ in range(4)], beam=3)
    trained(quantizer, (400, 4))
    tables = [layer.embeddings.double() for layer in quantizer.layers]
    x = torch.randn(60, 4)
    for row, codes in zip(x.double(), quantizer(x).codes.tolist(), strict=True):
        beam = [(0.0, [], row)]
        for table in tables:
            grown = [
                (float((rest - table[k]).square().sum()), [*path, k], rest - table[k])
                for _, path, rest in beam
                for k in range(16)
            ]
            beam = sorted(grown, key=lambda sum_: sum_[0])[:3]
        assert codes == beam[0][1]


def test_beams_do_not_depend_on_the_batch():
    quantizer = BeamResidualQuantizer([VectorQuantizer(16, 4) for _ in range(3)])
    trained(quantizer, (400, 4))
    x = torch.randn(300, 4)
    codes = quantizer(x).codes
    assert torch.equal(torch.cat([quantizer(part).codes for part in x.split([1, 33, 266])]), codes)


SCALES = (1, 2, 3, 5)


def pyramid(**arguments):
    return trained(MultiScaleQuantizer(VectorQuantizer(32, 4), SCALES, **arguments), (8, 5, 5, 4))


def test_each_scale_codes_what_is_left():
    """Written out scale by scale, with channels first and torch's own resizing."""
    quantizer = pyramid(refinements=2)
    table = quantizer.layer.embeddings
    x = torch.randn(6, 5, 5, 4)
    rest = x.permute(0, 3, 1, 2)
    total = torch.zeros_like(rest)
    codes, commitments = [], []
    for index, side in enumerate(SCALES):
        small = F.interpolate(rest, size=(side, side), mode="area")
        found = torch.cdist(small.permute(0, 2, 3, 1).double(), table.double()).argmin(-1)
        large = table[found].permute(0, 3, 1, 2)
        if side < 5:
            large = F.interpolate(large, size=(5, 5), mode="bicubic")
        refined = quantizer.refinements[0 if index < 2 else 1](large)
        large = 0.5 * large + 0.5 * refined
        total, rest = total + large, rest - large
        codes.append(found.reshape(6, -1))
        commitments.append(rest.square().mean())
    result = quantizer(x)
    assert result.codes.shape == (6, 1 + 4 + 9 + 25, 1)
    assert torch.equal(result.codes[..., 0], torch.cat(codes, 1))
    torch.testing.assert_close(result.quantized, total.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(result.losses["commitment"], torch.stack(commitments).mean())


def test_more_scales_are_closer():
    quantizer = pyramid().requires_grad_(False)
    x = torch.randn(16, 5, 5, 4)
    codes = quantizer(x).codes
    ends = [1, 5, 14, 39]
    errors = [float((quantizer.embed(codes[:, :end]) - x).square().mean()) for end in ends]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.6 * errors[0]
    with pytest.raises(ValueError, match="codes of whole scales"):
        quantizer.embed(codes[:, :6])


def test_convolutions_learn_from_the_refinement_loss_alone():
    quantizer = pyramid(refinements=2).train()
    result = quantizer(torch.randn(6, 5, 5, 4, requires_grad=True))
    weights = [conv.weight for conv in quantizer.refinements]
    assert all((g != 0).any() for g in torch.autograd.grad(result.losses["refinement"], weights))
    assert not torch.autograd.grad(
        result.losses["commitment"], weights, allow_unused=True, retain_graph=True
    )[0]


def test_training_the_pyramid_lowers_the_error():
    torch.manual_seed(0)
    quantizer = MultiScaleQuantizer(VectorQuantizer(32, 4), SCALES)
    optimizer = torch.optim.Adam(quantizer.parameters(), 3e-3)
    basis = torch.randn(3, 5, 5, 4)
    losses = []
    for _ in range(60):
        x = torch.einsum("bk,khwd->bhwd", torch.randn(16, 3), basis)
        result = quantizer(x)
        losses.append(float((result.quantized.detach() - x).square().mean() / x.square().mean()))
        optimizer.zero_grad()
        result.losses["refinement"].backward()
        optimizer.step()
    assert sum(losses[-10:]) < 0.85 * sum(losses[:10])


def test_cells_average_the_positions_that_count():
    quantizer = pyramid()
    x = torch.randn(2, 5, 5, 4)
    mask = torch.zeros(2, 5, 5, dtype=torch.bool)
    mask[:, 2, 3] = True
    mean = x[:, 2, 3]
    code = torch.cdist(mean, quantizer.layer.embeddings).argmin(1)
    result = quantizer(x, mask)
    assert torch.equal(result.codes[:, 0, 0], code)
    # One cell of 1 x 1, one of 2 x 2, and so on: those below (2, 3) count.
    assert result.metrics["usage"] <= 2 * 6 / 32


def test_wrong_arguments():
    layer = VectorQuantizer(4, 2)
    for scales in ((), (0, 1), (2, 1), (1, 1)):
        with pytest.raises(ValueError, match="scales must be positive and rise"):
            MultiScaleQuantizer(layer, scales)
    with pytest.raises(ValueError, match="a ProjectedQuantizer learns from the gradient"):
        MultiScaleQuantizer(ProjectedQuantizer(layer, dim=3), (1, 2))
    with pytest.raises(ValueError, match="must have one codebook"):
        MultiScaleQuantizer(ResidualQuantizer([layer, layer]), (1, 2))
    with pytest.raises(ValueError, match=r"latents must be \[..., 2, 2, 2\]"):
        MultiScaleQuantizer(layer, (1, 2))(torch.randn(1, 3, 3, 2))
    with pytest.raises(ValueError, match="at least one layer"):
        GroupedQuantizer([])
    with pytest.raises(ValueError, match="num_codebooks must be positive"):
        SharedResidualQuantizer(layer, 0)
    with pytest.raises(ValueError, match="beam must be at least 1"):
        BeamResidualQuantizer([layer], beam=0)
