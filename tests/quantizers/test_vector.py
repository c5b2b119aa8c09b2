"""VectorQuantizer against plain float64 formulas."""

import pytest
import torch
import torch.nn.functional as F

from vqtok.quantizers import VectorQuantizer
from vqtok.quantizers.distributed import draw_rows
from vqtok.quantizers.kmeans import kmeans
from vqtok.quantizers.penalties import PENALTIES


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
    """After enough steps each center is the float64 mean of the rows nearest to it."""
    torch.manual_seed(3)
    x, _ = clusters(rows=2000)
    centers, counts = kmeans(x, 8, iterations=60)
    nearest = torch.cdist(x.double(), centers.double()).argmin(1)
    assert torch.equal(counts, torch.bincount(nearest, minlength=8))
    for code in range(8):
        mean = x[nearest == code].double().mean(0)
        torch.testing.assert_close(centers[code].double(), mean, atol=1e-5, rtol=1e-5)
    spread = (x - x.mean(0)).square().sum(1).mean()
    assert (x - centers[nearest]).square().sum(1).mean() < 0.6 * spread


def test_kmeans_sees_only_valid_rows():
    x, _ = clusters(rows=600)
    valid = torch.rand(600, generator=torch.Generator().manual_seed(1)) < 0.5
    torch.manual_seed(4)
    centers, counts = kmeans(torch.where(valid[:, None], x, 0.0), 8, valid=valid)
    torch.manual_seed(4)
    alone, alone_counts = kmeans(x[valid], 8)
    assert torch.equal(centers, alone)
    assert torch.equal(counts, alone_counts)
    assert counts.sum() == valid.sum()


def test_rows_are_drawn_evenly_and_distinct():
    rows = torch.arange(30.0)[:, None]
    valid = torch.ones(30, dtype=torch.bool)
    valid[10:20] = False
    seen = torch.zeros(30)
    for seed in range(300):
        torch.manual_seed(seed)
        drawn, total = draw_rows(rows, valid, 7)
        assert total == 20
        assert len(drawn.unique()) == 7
        seen[drawn[:, 0].long()] += 1
    assert (seen[10:20] == 0).all()
    assert (seen[valid] > 0.6 * 300 * 7 / 20).all()
    assert (seen[valid] < 1.4 * 300 * 7 / 20).all()


def test_an_orthogonal_codebook_has_no_orthogonal_loss():
    table = torch.randn(8, 4)
    loss = PENALTIES["orthogonal"](table, table, table, None)
    unit = F.normalize(table.double(), dim=-1)
    expected = (unit @ unit.T - torch.eye(8)).square().sum() / 64
    torch.testing.assert_close(loss.double(), expected)
    straight = 3 * torch.eye(4)
    assert PENALTIES["orthogonal"](straight, straight, straight, None) == 0


def test_diversity_is_what_the_mean_soft_code_lacks():
    torch.manual_seed(0)
    quantizer = VectorQuantizer(8, 4, penalties=["diversity"], kmeans_iterations=0).train()
    quantizer(torch.randn(64, 4))
    table = quantizer.embeddings.double().clone()
    x = torch.randn(50, 4)
    loss = quantizer(x).losses["diversity"]
    distance = torch.cdist(x.double(), table).square()
    share = torch.softmax(-distance / distance.min(1).values.mean(), dim=1).mean(0)
    expected = torch.tensor(8.0).log() + (share * share.log()).sum()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-6)


def test_a_masked_first_batch_starts_at_the_next():
    torch.manual_seed(0)
    quantizer = VectorQuantizer(4, 2).train()
    quantizer(torch.full((9, 2), torch.nan), torch.zeros(9, dtype=torch.bool))
    assert not quantizer.initialized
    x = 100 + torch.rand(50, 2)
    quantizer(x)
    assert quantizer.initialized
    assert (quantizer.embeddings >= 100).all()


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


@pytest.mark.parametrize("cosine", [False, True])
def test_latents_too_large_for_float32_sums_touch_no_state(cosine):
    x, _ = clusters()
    quantizer = trained(x, cosine=cosine)
    huge = torch.tensor([[3e38] * 4, [3e38] * 4, [0.0, 1e20, 1.0, -1e20]])
    alone = trained(x, cosine=cosine)
    quantizer(torch.cat([x, huge]))
    alone(torch.cat([x, torch.zeros(3, 4)]), torch.arange(len(x) + 3) < len(x))
    assert torch.equal(quantizer.embeddings, alone.embeddings)
    assert torch.equal(quantizer.counts, alone.counts)


@pytest.mark.parametrize("learning", ["ema", "gradient"])
def test_the_output_may_be_changed_in_place(learning):
    quantizer = trained(clusters()[0], learning=learning)
    gradients = []
    for change in (torch.relu, torch.relu_):
        x = clusters(seed=1)[0].requires_grad_(True)
        result = quantizer.eval()(x * 1.0)
        (change(result.quantized).sum() + result.losses["commitment"]).backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)


def test_fewer_rows_than_codes():
    quantizer = VectorQuantizer(64, 4).train()
    quantizer(torch.randn(3, 4))
    assert quantizer.embeddings.isfinite().all()
    assert len(quantizer.embeddings.unique(dim=0)) == 64


@pytest.mark.parametrize(
    "arguments",
    [
        {"codebook_size": 0},
        {"dim": 0},
        {"learning": "magic"},
        {"gradient": "none"},
        {"penalties": ["orthogonal"]},
        {"learning": "gradient", "penalties": ["magic"]},
    ],
)
def test_wrong_arguments(arguments):
    with pytest.raises(ValueError, match="must be"):
        VectorQuantizer(**{"codebook_size": 8, "dim": 4, **arguments})
