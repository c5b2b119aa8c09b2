"""SimVQ, IBQ, Gumbel, random projection and projected codebooks against float64 formulas."""

import math

import pytest
import torch
import torch.nn.functional as F

from vqtok.quantizers import (
    FSQ,
    IBQ,
    GumbelQuantizer,
    ProjectedQuantizer,
    RandomProjectionQuantizer,
    SimVQ,
    VectorQuantizer,
)


def gradients(outputs, inputs):
    return torch.autograd.grad(outputs, inputs, retain_graph=True)


def test_simvq_looks_up_in_the_transformed_vectors():
    torch.manual_seed(0)
    quantizer = SimVQ(32, 4).train()
    x = torch.randn(200, 4, requires_grad=True)
    result = quantizer(x)
    weight = quantizer.transform.weight.detach().double().requires_grad_(True)
    table = quantizer.vectors.double() @ weight.T
    wide = x.detach().double().requires_grad_(True)
    codes = torch.cdist(wide, table).argmin(1)
    assert torch.equal(result.codes[:, 0], codes)
    commitment = F.mse_loss(wide, table[codes].detach())
    codebook = F.mse_loss(table[codes], wide.detach())
    torch.testing.assert_close(result.losses["commitment"].double(), commitment)
    torch.testing.assert_close(result.losses["codebook"].double(), codebook)
    (moved,) = gradients(result.losses["codebook"], [quantizer.transform.weight])
    torch.testing.assert_close(moved.double(), gradients(codebook, [weight])[0])
    (pulled,) = gradients(result.losses["commitment"], [x])
    torch.testing.assert_close(pulled.double(), gradients(commitment, [wide])[0])


@pytest.mark.parametrize("cosine", [False, True])
def test_ibq_is_the_one_hot_code_with_the_gradient_of_the_softmax(cosine):
    torch.manual_seed(0)
    quantizer = IBQ(12, 4, temperature=0.3, cosine=cosine).train()
    x = torch.randn(60, 4, requires_grad=True)
    weights = torch.randn(60, 4)
    result = quantizer(x)
    wide = x.detach().double().requires_grad_(True)
    rows = quantizer.embeddings.detach().double().requires_grad_(True)
    points, table = (F.normalize(t, dim=-1) if cosine else t for t in (wide, rows))
    logits = points @ table.T
    soft = logits.softmax(1)
    hard = F.one_hot(logits.argmax(1), 12).double()
    quantized = (hard - soft.detach() + soft) @ table
    plain = hard @ table
    share = (logits / 0.3).softmax(1)
    expected = {
        "commitment": F.mse_loss(points, plain.detach()),
        "codebook": F.mse_loss(plain, points.detach()),
        "index": F.mse_loss(quantized, points),
        "entropy": torch.special.entr(share).sum(1).mean(),
        "diversity": math.log(12) - torch.special.entr(share.mean(0)).sum(),
    }
    assert torch.equal(result.codes[:, 0], logits.argmax(1))
    torch.testing.assert_close(result.quantized.double(), quantized)
    pairs = {name: (result.losses[name], loss) for name, loss in expected.items()}
    pairs["output"] = ((result.quantized * weights).sum(), (quantized * weights).sum())
    assert result.losses.keys() == expected.keys()
    for name, (ours, theirs) in pairs.items():
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)
        moved = [t for t in (x, quantizer.embeddings) if name != "codebook" or t is not x]
        moved = moved[:1] if name == "commitment" else moved
        wanted = [{id(x): wide, id(quantizer.embeddings): rows}[id(t)] for t in moved]
        for got, want in zip(gradients(ours, moved), gradients(theirs, wanted), strict=True):
            torch.testing.assert_close(got.double(), want, rtol=1e-3, atol=1e-5)


def test_gumbel_draws_from_the_softmax():
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(5, 3).train()
    x = torch.randn(1, 3)
    share = quantizer.scores(x).softmax(-1)[0]
    codes = quantizer(x.expand(40_000, 3)).codes[:, 0]
    drawn = torch.bincount(codes, minlength=5) / 40_000
    torch.testing.assert_close(drawn, share.detach(), atol=0.01, rtol=0)
    best = quantizer.eval()(torch.randn(500, 3))
    assert best.losses == {}


def test_gumbel_gradient_is_that_of_the_soft_sample():
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(5, 3, temperature=0.8).train()
    x = torch.randn(40, 3, requires_grad=True)
    weights = torch.randn(40, 3)
    torch.manual_seed(7)
    result = quantizer(x)
    torch.manual_seed(7)
    noise = -(-torch.rand(40, 5).clamp_min(1e-20).log()).log().double()
    wide = x.detach().double().requires_grad_(True)
    weight, bias, rows = (
        t.detach().double().requires_grad_(True)
        for t in (quantizer.scores.weight, quantizer.scores.bias, quantizer.embeddings)
    )
    logits = wide @ weight.T + bias
    soft = ((logits + noise) / 0.8).softmax(1)
    hard = F.one_hot((logits + noise).argmax(1), 5).double()
    quantized = (hard - soft.detach() + soft) @ rows
    torch.testing.assert_close(result.quantized.double(), quantized)
    kl = (logits.softmax(1) * (logits.log_softmax(1) + math.log(5))).sum(1).mean()
    torch.testing.assert_close(result.losses["kl"].double(), kl)
    ours = gradients(
        (result.quantized * weights).sum() + result.losses["kl"],
        [x, quantizer.scores.weight, quantizer.scores.bias, quantizer.embeddings],
    )
    theirs = gradients((quantized * weights).sum() + kl, [wide, weight, bias, rows])
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-3, atol=1e-5)


def test_gumbel_temperature_is_state():
    quantizer = GumbelQuantizer(5, 3)
    quantizer.temperature.fill_(0.25)
    copy = GumbelQuantizer(5, 3)
    copy.load_state_dict(quantizer.state_dict())
    assert copy.temperature == 0.25


def test_random_projection_is_the_nearest_by_angle():
    torch.manual_seed(0)
    quantizer = RandomProjectionQuantizer(64, 10, codebook_dim=4).eval()
    x = torch.randn(500, 10)
    projected = x.double() @ quantizer.projection.double()
    cosine = F.normalize(projected, dim=-1) @ quantizer.vectors.double().T
    assert torch.equal(quantizer(x).codes[:, 0], cosine.argmax(1))
    assert not list(quantizer.parameters())
    other = RandomProjectionQuantizer(64, 10, codebook_dim=4).eval()
    other.load_state_dict(quantizer.state_dict())
    assert torch.equal(other(x).codes, quantizer(x).codes)


def test_projected_is_the_layer_between_two_linear_maps():
    torch.manual_seed(0)
    layer = VectorQuantizer(16, 2)
    quantizer = ProjectedQuantizer(layer, dim=8).train()
    x = torch.randn(100, 8, requires_grad=True)
    quantizer(x)
    quantizer.eval()
    result = quantizer(x)
    low = F.linear(x.double(), *(p.double() for p in quantizer.project_in.parameters()))
    inner = layer(low.float())
    assert torch.equal(result.codes, inner.codes)
    torch.testing.assert_close(result.quantized, quantizer.project_out(inner.quantized))
    (reached,) = gradients(result.quantized.sum(), [x])
    weight = quantizer.project_in.weight.T @ quantizer.project_out.weight.T
    torch.testing.assert_close(reached, weight.sum(1).expand(100, 8))


@pytest.mark.parametrize(
    "make",
    [
        lambda: SimVQ(0, 4),
        lambda: SimVQ(4, 4, gradient="magic"),
        lambda: IBQ(4, 4, temperature=0.0),
        lambda: GumbelQuantizer(4, 0),
        lambda: RandomProjectionQuantizer(4, 3, codebook_dim=4),
        lambda: ProjectedQuantizer(FSQ([3]), dim=0),
    ],
)
def test_wrong_arguments(make):
    with pytest.raises(ValueError, match="must be"):
        make()
