"""Bounds against a model whose likelihood is known: linear and Gaussian."""

import math

import pytest
import torch

from vqtok.autoencoders import Autoencoder, variant
from vqtok.autoencoders.bottlenecks import GaussianBottleneck
from vqtok.autoencoders.bounds import importance_bound
from vqtok.autoencoders.likelihoods import Gaussian
from vqtok.nn import MLPDecoder, MLPEncoder


def linear_vae(noise=0.5):
    """x = W z + b + noise, with a posterior that is nearly, not quite, the right one."""
    torch.manual_seed(0)
    model = Autoencoder(
        MLPEncoder([4], [], 2),
        GaussianBottleneck(2, 2),
        MLPDecoder([4], [], 2),
        likelihood=Gaussian(noise),
    )
    weight, bias = model.decoder.layers[0].weight, model.decoder.layers[0].bias
    with torch.no_grad():
        weight.mul_(3)
        precision = torch.eye(2) + weight.T @ weight / noise**2
        gain = torch.linalg.inv(precision) @ weight.T / noise**2
        model.encoder.layers[0].weight.copy_(gain)
        model.encoder.layers[0].bias.copy_(-gain @ bias)
        model.bottleneck.mean.weight.copy_(1.05 * torch.eye(2))
        model.bottleneck.mean.bias.zero_()
        model.bottleneck.log_variance.weight.zero_()
        model.bottleneck.log_variance.bias.copy_(torch.linalg.inv(precision).diagonal().log())
    marginal = torch.distributions.MultivariateNormal(
        bias.detach(), weight.detach() @ weight.detach().T + noise**2 * torch.eye(4)
    )
    return model, marginal


def test_bounds_rise_to_the_likelihood():
    model, marginal = linear_vae()
    x = marginal.sample((300,))
    truth = float(marginal.log_prob(x).mean())
    one, ten, many = (float(importance_bound(model, x, k).mean()) for k in (1, 10, 2000))
    assert one < ten < truth + 0.01
    assert many == pytest.approx(truth, abs=0.01)


def test_one_draw_is_the_evidence_lower_bound():
    model, marginal = linear_vae()
    x = marginal.sample((1,)).expand(20_000, 4)
    bound = float(importance_bound(model, x, 1).mean())
    torch.manual_seed(1)
    losses = model.train()(x).losses
    expected = -float((losses["reconstruction"] + losses["kl"]).detach())
    assert bound == pytest.approx(expected, abs=0.03)
    assert model.training


def test_bounds_are_deterministic_and_for_vaes():
    model, marginal = linear_vae()
    x = marginal.sample((5,))
    assert torch.equal(importance_bound(model, x, 3), importance_bound(model, x, 3))
    assert not math.isnan(float(importance_bound(model, x, 3).sum()))
    with pytest.raises(ValueError, match="Gaussian bottleneck"):
        importance_bound(variant("vanilla", (4,)), x, 3)
