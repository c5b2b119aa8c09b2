"""VectorQuantizer against plain float64 formulas."""

import pytest
import torch
import torch.nn.functional as F

from vqtok.quantizers import VectorQuantizer


def trained(x, **arguments):
    torch.manual_seed(0)
    quantizer = VectorQuantizer(8, 4, **arguments).train()
    quantizer(x)
    return quantizer


def clusters(rows=400, seed=0):
    """Eight well separated clusters in four dimensions."""
    generator = torch.Generator().manual_seed(seed)
    centers = 10 * torch.eye(4).repeat(2, 1) * torch.tensor([1.0] * 4 + [-1.0] * 4)[:, None]
    which = torch.randint(8, (rows,), generator=generator)
    return centers[which] + 0.1 * torch.randn(rows, 4, generator=generator), centers


def test_codes_are_the_float64_argmin():
    x, _ = clusters()
    quantizer = trained(x).eval()
    noise = torch.randn(1000, 4) * 5
    distances = torch.cdist(noise.double(), quantizer.embeddings.double())
    assert torch.equal(quantizer(noise).codes[:, 0], distances.argmin(1))


def test_cosine_codes_are_the_largest_cosine():
    quantizer = trained(torch.randn(300, 4), cosine=True).eval()
    x = torch.randn(1000, 4)
    cosine = F.normalize(x.double(), dim=-1) @ quantizer.embeddings.double().T
    result = quantizer(x)
    assert torch.equal(result.codes[:, 0], cosine.argmax(1))
    torch.testing.assert_close(result.quantized.norm(dim=-1), torch.ones(1000))


def test_losses_match_their_formulas():
    quantizer = trained(torch.randn(300, 4), learning="gradient").eval()
    x = torch.randn(50, 4, requires_grad=True)
    result = quantizer(x)
    chosen = quantizer.embeddings[result.codes[:, 0]]
    torch.testing.assert_close(result.losses["commitment"], F.mse_loss(x, chosen.detach()))
    torch.testing.assert_close(result.losses["codebook"], F.mse_loss(chosen, x.detach()))
    result.losses["commitment"].backward(retain_graph=True)
    assert quantizer.embeddings.grad is None
    torch.testing.assert_close(x.grad, 2 * (x - chosen).detach() / x.numel())
    x.grad = None
    result.losses["codebook"].backward()
    assert x.grad is None
    expected = torch.zeros(8, 4).index_add(
        0, result.codes[:, 0], 2 * (chosen - x).detach() / x.numel()
    )
    torch.testing.assert_close(quantizer.embeddings.grad, expected)


def test_ema_follows_the_running_means():
    x, _ = clusters()
    quantizer = trained(x, decay=0.9, revive_below=0.0)
    counts = quantizer.counts.double()
    sums = quantizer.embeddings.double() * counts[:, None]
    batch, _ = clusters(seed=7)
    codes = quantizer(batch).codes[:, 0]
    hits = F.one_hot(codes, 8).double()
    counts = 0.9 * counts + 0.1 * hits.sum(0)
    sums = 0.9 * sums + 0.1 * hits.T @ batch.double()
    torch.testing.assert_close(quantizer.counts.double(), counts, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        quantizer.embeddings.double(), sums / counts[:, None], rtol=1e-5, atol=1e-5
    )


def test_kmeans_starts_the_codebook_on_the_data():
    """On separated clusters a few restarts of empty ones find every center."""
    x, centers = clusters(rows=2000)
    quantizer = trained(x, kmeans_iterations=30)
    for batch in range(40):
        quantizer(clusters(rows=2000, seed=batch)[0])
    error = torch.cdist(x, quantizer.embeddings).min(1).values.mean()
    baseline = torch.cdist(x, centers).min(1).values.mean()
    assert error < 1.5 * baseline


def test_dead_codes_come_back():
    x, _ = clusters()
    quantizer = trained(x, decay=0.5, revive_below=0.2)
    with torch.no_grad():
        quantizer.embeddings[3] = 1e6
    for seed in range(20):
        quantizer(clusters(seed=seed)[0])
    assert quantizer.embeddings.abs().max() < 100


def test_without_revival_a_dead_code_stays():
    x, _ = clusters()
    quantizer = trained(x, revive_below=0.0, decay=0.5)
    with torch.no_grad():
        quantizer.embeddings[3] = 1e6
    for seed in range(20):
        quantizer(clusters(seed=seed)[0])
    assert quantizer.embeddings[3].abs().max() > 1e5


def test_gradient_codebooks_are_revived_too():
    x, _ = clusters()
    quantizer = trained(x, learning="gradient", decay=0.5, revive_below=0.2)
    with torch.no_grad():
        quantizer.embeddings[3] = 1e6
    for seed in range(20):
        quantizer(clusters(seed=seed)[0])
    assert quantizer.embeddings.abs().max() < 100


def test_metrics_match_their_definitions():
    quantizer = VectorQuantizer(4, 1).eval()
    quantizer.embeddings.copy_(torch.tensor([[0.0], [1.0], [2.0], [3.0]]))
    result = quantizer(torch.tensor([[0.0], [0.1], [1.0], [2.1]]))
    entropy = -(0.5 * torch.tensor(0.5).log() + 2 * 0.25 * torch.tensor(0.25).log())
    torch.testing.assert_close(result.metrics["perplexity"], entropy.exp()[None])
    assert result.metrics["usage"].tolist() == [0.75]


def test_fewer_rows_than_codes():
    quantizer = VectorQuantizer(64, 4).train()
    quantizer(torch.randn(3, 4))
    assert quantizer.embeddings.isfinite().all()
    assert len(quantizer.embeddings.unique(dim=0)) == 64


@pytest.mark.parametrize(
    "arguments",
    [{"codebook_size": 0}, {"dim": 0}, {"learning": "magic"}, {"gradient": "none"}],
)
def test_wrong_arguments(arguments):
    with pytest.raises(ValueError, match="must be"):
        VectorQuantizer(**{"codebook_size": 8, "dim": 4, **arguments})
