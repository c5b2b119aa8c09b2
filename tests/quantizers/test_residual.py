import pytest
import torch
import torch.nn.functional as F

from vqtok.quantizers import (
    FSQ,
    IBQ,
    GumbelQuantizer,
    ProjectedQuantizer,
    ResidualQuantizer,
    VectorQuantizer,
)


def residual(**arguments):
    torch.manual_seed(0)
    quantizer = ResidualQuantizer([VectorQuantizer(16, 3) for _ in range(4)], **arguments)
    quantizer.train()
    for seed in range(10):
        quantizer(torch.randn(64, 10, 3, generator=torch.Generator().manual_seed(seed)))
    return quantizer


def test_each_layer_codes_what_is_left():
    quantizer = residual().eval()
    x = torch.randn(200, 3)
    result = quantizer(x)
    left = x.double()
    for index, layer in enumerate(quantizer.layers):
        table = layer.embeddings.double()
        codes = torch.cdist(left, table).argmin(1)
        # Residuals are computed in float32, so a near tie may fall either way.
        assert (codes == result.codes[:, index]).float().mean() > 0.99
        left = left - table[result.codes[:, index]]
    torch.testing.assert_close(left, (x - result.quantized).double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_one_pass_is_the_loop_over_layers_bit_for_bit(monkeypatch, gradient):
    quantizer = residual(gradient=gradient).eval()
    weights = torch.randn(3, 50, 3)
    outcomes = []
    for plain in (True, False):
        if not plain:
            monkeypatch.setattr(VectorQuantizer, "is_plain", False)
        x = torch.randn(3, 50, 3, generator=torch.Generator().manual_seed(7)).requires_grad_(True)
        for used in (4, 2):
            result = quantizer(x, num_codebooks=used)
            ((result.quantized * weights).sum() + result.losses["commitment"]).backward()
            outcomes.append((result, x.grad.clone()))
    for (one, gradient_of_one), (loop, gradient_of_loop) in zip(
        outcomes[:2], outcomes[2:], strict=True
    ):
        assert torch.equal(one.codes, loop.codes)
        assert torch.equal(one.quantized, loop.quantized)
        assert torch.equal(gradient_of_one, gradient_of_loop)
        assert one.losses == loop.losses
        assert one.metrics.keys() == loop.metrics.keys()
        for name in one.metrics:
            assert torch.equal(one.metrics[name], loop.metrics[name])


def test_one_pass_takes_masked_positions_as_zeros():
    quantizer = residual().eval()
    x, mask = torch.randn(4, 9, 3), torch.rand(4, 9) < 0.5
    clean, padded = quantizer(torch.where(mask[..., None], x, 0.0), mask), x.clone()
    padded[~mask] = torch.nan
    dirty = quantizer(padded, mask)
    assert torch.equal(clean.codes, dirty.codes)
    assert torch.equal(clean.losses["commitment"], dirty.losses["commitment"])
    assert torch.equal(quantizer(x).codes[mask], dirty.codes[mask])


def factorised(codebooks=3, learning="ema"):
    """As in DAC: each codebook of 2 dimensions, between linear layers of its own."""
    torch.manual_seed(0)
    layers = [VectorQuantizer(16, 2, learning=learning, revive_below=0.0) for _ in range(codebooks)]
    quantizer = ResidualQuantizer([ProjectedQuantizer(layer, dim=6) for layer in layers]).train()
    quantizer(torch.randn(200, 6))
    return quantizer


def dac(x, layers):
    """DAC's formulas, with the gradient through everything but the rounding: the sum, and the mean
    commitment and codebook losses."""
    rest, total, commitment, codebook = x, 0.0, 0.0, 0.0
    for layer in layers:
        low = F.linear(rest, layer.project_in.weight, layer.project_in.bias)
        table = layer.layer.embeddings
        found = table[torch.cdist(low.detach().double(), table.detach().double()).argmin(1)]
        commitment = commitment + F.mse_loss(low, found.detach()) / len(layers)
        codebook = codebook + F.mse_loss(found, low.detach()) / len(layers)
        out = F.linear(low + (found - low).detach(), layer.project_out.weight)
        out = out + layer.project_out.bias
        total, rest = total + out, rest - out
    return total, commitment, codebook


@pytest.mark.parametrize("learning", ["ema", "gradient"])
def test_factorised_codebooks_have_the_gradients_of_dac(learning):
    quantizer, weights = factorised(learning=learning), torch.randn(100, 6)
    x = torch.randn(100, 6, requires_grad=True)
    wanted = [x, *(p for p in quantizer.parameters() if p.numel())]
    total, commitment, codebook = dac(x, quantizer.layers)
    expected_loss = (total * weights).sum() + 0.25 * commitment
    expected_loss = expected_loss + codebook if learning == "gradient" else expected_loss
    expected = torch.autograd.grad(expected_loss, wanted)
    result = quantizer(x)
    torch.testing.assert_close(result.quantized, total)
    loss = (result.quantized * weights).sum() + 0.25 * result.losses["commitment"]
    loss = loss + result.losses.get("codebook", 0.0)
    for found, value in zip(torch.autograd.grad(loss, wanted), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-4)


def test_factorised_codebooks_train():
    """On latents in a plane of 6 dimensions: nothing but their linear layers can find it."""
    quantizer, basis = factorised(), torch.randn(2, 6)
    optimizer = torch.optim.Adam(quantizer.parameters(), 1e-2)
    errors = []
    for _ in range(150):
        x = torch.randn(128, 2) @ basis
        result = quantizer(x)
        error = (result.quantized - x).square().mean()
        errors.append(float(error.detach() / x.square().mean()))
        optimizer.zero_grad()
        (error + 0.25 * result.losses["commitment"]).backward()
        optimizer.step()
    assert sum(errors[-10:]) / 10 < 0.05


def test_where_layers_learn_from_the_output_constant_ones_pass_it_straight():
    """Through the sum of constant embeddings alone the chain is the identity, bit for bit."""
    torch.manual_seed(0)
    layers = [VectorQuantizer(8, 3) for _ in range(4)]
    quantizer = ResidualQuantizer(layers).train()
    quantizer(torch.randn(50, 3))
    x, weights = torch.randn(50, 3, requires_grad=True), torch.randn(50, 3)
    for chained in (False, True):
        quantizer.chained = chained
        result = quantizer.requires_grad_(False)(x)
        (gradient,) = torch.autograd.grad((result.quantized * weights).sum(), x)
        assert torch.equal(gradient, weights)


@pytest.mark.parametrize("make", [IBQ, GumbelQuantizer])
def test_embeddings_that_learn_from_the_output_do_in_a_residual(make):
    torch.manual_seed(0)
    quantizer = ResidualQuantizer([make(8, 3) for _ in range(2)]).train()
    quantizer(torch.randn(50, 3)).quantized.square().sum().backward()
    assert all((layer.embeddings.grad != 0).any() for layer in quantizer.layers)


def test_the_rotation_of_a_sum_is_for_constant_embeddings():
    layers = [ProjectedQuantizer(FSQ([3, 3]), dim=4)]
    with pytest.raises(ValueError, match="give it to the quantizers inside"):
        ResidualQuantizer(layers, gradient="rotation")


def test_more_codebooks_are_closer():
    quantizer = residual(dropout=0.5).eval()
    x = torch.randn(500, 3)
    errors = [
        float((quantizer(x, num_codebooks=used).quantized - x).square().mean())
        for used in range(1, 5)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.25 * errors[0]


def test_dropout_drops_whole_suffixes_of_samples():
    quantizer = residual(dropout=1.0)
    x = torch.randn(300, 5, 3)
    tables = [layer.embeddings.clone() for layer in quantizer.layers]
    result = quantizer(x)
    used_counts = []
    for sample in range(300):
        total = torch.zeros(5, 3)
        matches = []
        for index in range(4):
            total = total + tables[index][result.codes[sample, :, index]]
            matches.append(torch.allclose(total, result.quantized[sample], atol=1e-5))
        assert any(matches)
        used_counts.append(matches.index(True) + 1)
    for used in range(1, 5):
        assert 0.15 < used_counts.count(used) / 300 < 0.35


def test_frozen_layers_are_dropped_too():
    quantizer = residual(dropout=1.0).train()
    for layer in quantizer.layers:
        layer.eval()
    x = torch.randn(64, 3, 3)
    torch.manual_seed(1)
    dropped = quantizer(x).quantized
    whole = quantizer.eval()(x).quantized
    same = (dropped == whole).flatten(1).all(1).float().mean()
    assert 0.05 < same < 0.6  # one in four draws all codebooks


def test_codes_of_leaves_the_modes_of_layers_alone():
    quantizer = residual().train()
    quantizer.layers[0].eval()
    quantizer.codes_of(torch.randn(5, 3))
    with pytest.raises(ValueError, match="NaN"):
        quantizer.codes_of(torch.full((5, 3), torch.nan))
    assert [layer.training for layer in quantizer.layers] == [False, True, True, True]
    assert quantizer.training


def test_dropped_layers_learn_nothing_from_the_sample(monkeypatch):
    """Two samples, the first with one codebook: layer 2 must see the second sample only."""
    x = torch.randn(2, 7, 3)
    keep = torch.tensor([1, 4])[:, None].expand(2, 7)
    quantizer = residual(dropout=0.5)
    monkeypatch.setattr(quantizer, "_draw_num_codebooks", lambda latents, used: keep)
    alone = residual(dropout=0.5)
    monkeypatch.setattr(alone, "_draw_num_codebooks", lambda latents, used: keep[1:])
    for layer in (*quantizer.layers, *alone.layers):
        layer.revive_below = 0.0
    both, second = quantizer(x), alone(x[1:])
    assert not torch.equal(quantizer.layers[0].counts, alone.layers[0].counts)
    for index in (1, 2, 3):
        assert torch.equal(quantizer.layers[index].counts, alone.layers[index].counts)
        assert torch.equal(quantizer.layers[index].embeddings, alone.layers[index].embeddings)
    assert torch.equal(both.codes[1:], second.codes)


def test_layers_must_fit_together():
    with pytest.raises(ValueError, match="at least one layer"):
        ResidualQuantizer([])
    with pytest.raises(ValueError, match="differ in dim"):
        ResidualQuantizer([VectorQuantizer(4, 2), VectorQuantizer(4, 3)])
    with pytest.raises(ValueError, match="one codebook"):
        ResidualQuantizer([ResidualQuantizer([VectorQuantizer(4, 2)] * 2)])
