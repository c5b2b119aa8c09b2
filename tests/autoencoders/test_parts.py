"""Each part against the formulas of its paper, or against torch's own."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap

from vqtok.autoencoders import Autoencoder, build_autoencoder
from vqtok.autoencoders.bottlenecks import (
    BatchTopK,
    GaussianBottleneck,
    IdentityBottleneck,
    JumpReLU,
    TopK,
)
from vqtok.autoencoders.corruptions import GaussianNoise, Masking, SaltAndPepper
from vqtok.autoencoders.likelihoods import (
    Bernoulli,
    Categorical,
    Charbonnier,
    Gaussian,
    Hyperbolic,
    LearnedGaussian,
    MeanSquare,
)
from vqtok.autoencoders.penalties import (
    L1,
    AuxK,
    Context,
    Contractive,
    HutchinsonContractive,
    KLRho,
    relative_jacobian_norm,
)
from vqtok.autoencoders.scalings import Span, Standardize
from vqtok.autoencoders.schedule import at_step, check_schedule
from vqtok.nn import (
    DictionaryDecoder,
    DictionaryEncoder,
    MLPDecoder,
    MLPEncoder,
    TiedMLPDecoder,
)
from vqtok.tokenizer import Tokenizer


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def number(tensor):
    return tensor.detach().item()


def context(**parts):
    names = ("inputs", "target", "latents", "values", "output")
    given = {name: parts.get(name) for name in names}
    extra = {"decode": None, "bottleneck": None, "mask": None, "step": 0}
    return Context(**given, **{**extra, **{k: v for k, v in parts.items() if k in extra}})


# ---- schedules


def test_a_schedule_is_a_straight_line_then_constant():
    schedule = {"start": 1.0, "end": 3.0, "steps": 4, "delay": 2}
    assert [at_step(schedule, step) for step in range(8)] == [1, 1, 1, 1.5, 2, 2.5, 3, 3]
    assert at_step(schedule, None) == 3.0
    assert at_step(0.5, 7) == 0.5


@pytest.mark.parametrize(
    "wrong", [{"start": 1, "end": 2}, {"start": 0, "end": 1, "steps": 0}, float("nan"), "1"]
)
def test_a_wrong_schedule_is_refused(wrong):
    with pytest.raises(ValueError, match="weight"):
        check_schedule("weight", wrong)


# ---- bottlenecks


def test_gaussian_kl_is_that_of_torch():
    bottleneck = GaussianBottleneck(6, 3)
    latents = torch.randn(5, 2, 6)
    result = bottleneck(latents)
    mean, log_variance = bottleneck.posterior(latents)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(result.kl, expected)
    torch.testing.assert_close(result.losses["kl"], expected.sum((1, 2)).mean())


def test_gaussian_draws_in_training_only():
    bottleneck = GaussianBottleneck(6, 3)
    latents = torch.randn(4000, 6)[:1].expand(4000, 6)
    mean, log_variance = bottleneck.posterior(latents[:1])
    draws = bottleneck.train()(latents).values
    torch.testing.assert_close(draws.mean(0), mean[0], atol=0.06, rtol=0)
    torch.testing.assert_close(draws.var(0), log_variance[0].exp(), atol=0, rtol=0.1)
    assert torch.equal(bottleneck.eval()(latents[:1]).values, mean)


def test_gaussian_mask_is_as_if_the_positions_were_not_there():
    bottleneck = GaussianBottleneck(6, 3).eval()
    latents = torch.randn(4, 5, 6)
    mask = torch.arange(5) < torch.tensor([3])
    masked = bottleneck(latents, mask.expand(4, 5))
    short = bottleneck(latents[:, :3])
    torch.testing.assert_close(masked.losses["kl"], short.losses["kl"])
    torch.testing.assert_close(masked.metrics["active_units"], short.metrics["active_units"])


def test_free_bits_and_capacity():
    latents = torch.randn(50, 6)
    plain = GaussianBottleneck(6, 3)
    free = GaussianBottleneck(6, 3, free_bits=0.4)
    capacity = {"start": 0.0, "end": 5.0, "steps": 10}
    held = GaussianBottleneck(6, 3, capacity=capacity)
    for other in (free, held):
        other.load_state_dict(plain.state_dict())
    per_dim = plain(latents).kl.mean(0).detach()
    assert float(per_dim.min()) < 0.4
    torch.testing.assert_close(free(latents).losses["kl"], per_dim.clamp_min(0.4).sum())
    for step, target in [(0, 0.0), (5, 2.5), (None, 5.0)]:
        expected = (per_dim.sum() - target).abs()
        torch.testing.assert_close(held(latents, step=step).losses["kl"], expected)


def test_the_log_variance_cannot_explode():
    bottleneck = GaussianBottleneck(2, 2)
    result = bottleneck(torch.full((3, 2), 1e9))
    assert bool(result.kl.isfinite().all())


def test_active_units_counts_what_varies():
    bottleneck = GaussianBottleneck(3, 3)
    with torch.no_grad():
        bottleneck.mean.weight.copy_(torch.diag(torch.tensor([1.0, 0.0, 0.5])))
    metrics = bottleneck(torch.randn(500, 3)).metrics
    assert number(metrics["active_units"]) == 2


def test_top_k_keeps_the_largest_positive():
    latents = torch.tensor([[3.0, -5.0, 1.0, 2.0], [-1.0, -2.0, 0.5, -3.0]])
    result = TopK(4, 2)(latents)
    assert result.values.tolist() == [[3.0, 0, 0, 2.0], [0, 0, 0.5, 0]]
    assert number(result.metrics["l0"]) == 1.5


def test_dead_latents_are_counted_in_steps():
    bottleneck = TopK(3, 1, dead_after=2).train()
    first = torch.tensor([[1.0, 0.5, 0.2]] * 100)
    bottleneck(first)
    assert bottleneck.dead.tolist() == [False] * 3
    bottleneck(first)
    assert bottleneck.dead.tolist() == [False, True, True]
    bottleneck(torch.tensor([[0.0, 1.0, 0.0]]))
    assert bottleneck.dead.tolist() == [False, False, True]
    bottleneck.eval()(torch.tensor([[0.0, 0.0, 1.0]]))
    assert bottleneck.dead.tolist() == [False, False, True]


def test_batch_top_k_shares_its_budget_and_scores_alone():
    bottleneck = BatchTopK(4, 2, decay=0.0).train()
    latents = torch.randn(64, 4) * torch.rand(64, 1)
    values = bottleneck(latents).values
    kept = latents.relu().flatten().sort(descending=True).values[: 2 * 64]
    assert torch.equal(values.flatten().sort(descending=True).values[: 2 * 64], kept)
    assert len({int(n) for n in (values > 0).sum(1)}) > 1
    bottleneck.eval()
    together = bottleneck(latents).values
    alone = torch.cat([bottleneck(row[None]).values for row in latents])
    assert torch.equal(together, alone)
    assert int((together > 0).sum()) == int((values > 0).sum()) - 1  # the threshold itself


def test_jump_relu_is_its_paper():
    bottleneck = JumpReLU(3, threshold=0.5, bandwidth=0.2).train()
    latents = torch.tensor([[0.55, 0.45, 0.7], [0.3, 2.0, -1.0]], requires_grad=True)
    result = bottleneck(latents)
    assert result.values.tolist() == [
        [pytest.approx(0.55), 0.0, pytest.approx(0.7)],
        [0.0, 2.0, 0.0],
    ]
    assert number(result.losses["l0"]) == 1.5
    weight = torch.tensor([[2.0, 3.0, 5.0], [7.0, 11.0, 13.0]])
    (result.values * weight).sum().backward()
    assert latents.grad.tolist() == [[2.0, 0.0, 5.0], [0.0, 11.0, 0.0]]
    # d/d theta = -theta / bandwidth * gradient near the threshold; the parameter is its logarithm.
    expected = torch.tensor([-0.5 / 0.2 * 2.0, -0.5 / 0.2 * 3.0, 0.0]) * 0.5
    torch.testing.assert_close(bottleneck.log_threshold.grad, expected)
    bottleneck.zero_grad()
    bottleneck(latents.detach()).losses["l0"].backward()
    expected = torch.tensor([-1 / 0.2, -1 / 0.2, 0.0]) * 0.5 / 2
    torch.testing.assert_close(bottleneck.log_threshold.grad, expected)


# ---- likelihoods


def test_likelihoods_are_those_of_torch():
    output, target = torch.randn(4, 3), torch.randn(4, 3)
    normal = -torch.distributions.Normal(output, 0.3).log_prob(target)
    torch.testing.assert_close(Gaussian(0.3).cost(output, target), normal)
    torch.testing.assert_close(Gaussian(0.3)(output, target), normal.sum(1).mean())
    learned = LearnedGaussian()
    scale = 0.01 * math.exp(math.log(1 + math.exp(-math.log(0.01))))
    normal = -torch.distributions.Normal(output, scale).log_prob(target)
    torch.testing.assert_close(learned.cost(output, target), normal)
    binary = (target > 0).float()
    expected = -torch.distributions.Bernoulli(logits=output).log_prob(binary)
    torch.testing.assert_close(Bernoulli().cost(output, binary), expected)
    symbols, logits = torch.randint(0, 5, (4, 3)), torch.randn(4, 3, 5)
    expected = -torch.distributions.Categorical(logits=logits).log_prob(symbols)
    torch.testing.assert_close(Categorical().cost(logits, symbols), expected)


@pytest.mark.parametrize(("scale", "knee"), [(1.0, 0.1), (0.3, 0.5), (2.0, 0.01)])
def test_hyperbolic_is_a_density(scale, knee):
    places = torch.linspace(-40 * scale, 40 * scale, 400_001, dtype=torch.float64)
    density = (-Hyperbolic(scale, knee).cost(places, torch.zeros_like(places))).exp()
    assert float(torch.trapezoid(density, places)) == pytest.approx(1.0, abs=1e-6)


def test_the_learned_scale_finds_the_error():
    likelihood = LearnedGaussian()
    error = 0.2 * torch.randn(20_000)
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        likelihood.cost(error, torch.zeros_like(error)).mean().backward()
        optimizer.step()
    expected = -torch.distributions.Normal(0.0, float(error.std())).log_prob(error).mean()
    loss = likelihood.cost(error, torch.zeros_like(error)).mean()
    torch.testing.assert_close(loss, expected, atol=1e-3, rtol=0)


def test_plain_errors_are_means():
    output, target = torch.randn(4, 3), torch.randn(4, 3)
    assert torch.equal(MeanSquare()(output, target), nn.functional.mse_loss(output, target))
    expected = ((output - target) ** 2 + 1e-6).sqrt().mean()
    torch.testing.assert_close(Charbonnier()(output, target), expected)


@pytest.mark.parametrize("likelihood", [MeanSquare(), Charbonnier(), Gaussian(), Hyperbolic()])
def test_masked_places_do_not_count(likelihood):
    output, target = torch.randn(3, 5, 2), torch.randn(3, 5, 2)
    mask = (torch.arange(5) < 3).expand(3, 5)
    changed = torch.where(mask[..., None], output, 77.0)
    expected = likelihood(output[:, :3], target[:, :3])
    torch.testing.assert_close(likelihood(changed, target, mask), expected)


# ---- corruptions


def test_corruptions_do_what_they_say():
    x = torch.randn(2000, 10)
    noise = GaussianNoise(0.3)(x) - x
    assert float(noise.std()) == pytest.approx(0.3, rel=0.03)
    masked = Masking(0.2, value=-7.0)(x)
    assert float((masked == -7).float().mean()) == pytest.approx(0.2, abs=0.01)
    assert bool(((masked == x) | (masked == -7)).all())
    salted = SaltAndPepper(0.3)(x)
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    hit_low, hit_high = (salted == low) & (x != low), (salted == high) & (x != high)
    assert float(hit_low.float().mean()) == pytest.approx(0.15 * 0.9, abs=0.01)
    assert float(hit_high.float().mean()) == pytest.approx(0.15 * 0.9, abs=0.01)
    assert bool((hit_low | hit_high | (salted == x)).all())
    assert set(SaltAndPepper(1.0, low=0, high=1)(x).unique().tolist()) == {0.0, 1.0}


# ---- penalties


@pytest.mark.parametrize("hidden", [(), (12, 9)])
def test_contractive_is_the_jacobian_of_vmap_jacrev(hidden):
    encoder = MLPEncoder([7], hidden, 5, activation="tanh", output="sigmoid")
    x = torch.randn(6, 7, requires_grad=True)
    ours = Contractive()(context(inputs=x, latents=encoder(x)))
    parameters = dict(encoder.named_parameters())

    def encode(weights, sample):
        return functional_call(encoder, weights, (sample[None],))[0]

    def oracle(weights):
        jacobians = vmap(jacrev(encode, 1), (None, 0))(weights, x.detach())
        return jacobians.square().sum((1, 2)).mean()

    expected = oracle(parameters)
    assert number((ours - expected).abs() / expected) < 1e-6
    ours.backward()
    gradients = torch.func.grad(oracle)({k: v.detach() for k, v in parameters.items()})
    for name, parameter in parameters.items():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-6)


def test_one_sigmoid_layer_has_the_closed_form():
    encoder = MLPEncoder([7], (), 5, output="sigmoid")
    x = torch.randn(6, 7, requires_grad=True)
    h = encoder(x)
    weights = encoder.layers[0].weight
    closed = ((h * (1 - h)).square() @ weights.square().sum(1)).mean()
    torch.testing.assert_close(Contractive()(context(inputs=x, latents=h)), closed)


def test_hutchinson_is_unbiased():
    encoder = MLPEncoder([7], (20,), 15, activation="tanh")
    x = torch.randn(8, 7, requires_grad=True)
    exact = number(Contractive()(context(inputs=x, latents=encoder(x))))
    estimate = number(HutchinsonContractive(probes=1000)(context(inputs=x, latents=encoder(x))))
    assert estimate == pytest.approx(exact, rel=0.02)


def test_the_relative_norm_ignores_scale():
    encoder = MLPEncoder([7], (), 5)
    x = torch.randn(50, 7)
    once = relative_jacobian_norm(encoder, x)
    assert relative_jacobian_norm(lambda x: 0.01 * encoder(x), x) == pytest.approx(once, rel=1e-4)


def test_l1_and_kl_rho():
    values = torch.rand(4, 3, 2)
    torch.testing.assert_close(L1()(context(values=values - 0.5)), (values - 0.5).abs().sum() / 4)
    mean = values.flatten(0, 1).mean(0)
    units = [torch.distributions.Bernoulli(p) for p in (torch.full_like(mean, 0.1), mean)]
    expected = torch.distributions.kl_divergence(*units).sum()
    torch.testing.assert_close(KLRho(0.1)(context(values=values)), expected)
    with pytest.raises(ValueError, match="sigmoid"):
        KLRho()(context(values=values * 2))


def test_aux_k_lets_the_dead_explain_what_is_missed():
    bottleneck = TopK(4, 1, dead_after=1).train()
    latents = torch.tensor([[5.0, 0.3, 0.2, -1.0], [4.0, 0.1, 0.6, -2.0]])
    values = bottleneck(latents).values
    decoder = DictionaryDecoder([3], 4)
    with torch.no_grad():
        decoder.bias.fill_(0.7)
    target = torch.randn(2, 3)
    parts = {"latents": latents, "values": values, "output": decoder(values), "target": target}
    penalty = AuxK(1)(context(**parts, decode=decoder, bottleneck=bottleneck))
    atoms = nn.functional.normalize(decoder.atoms, dim=1)
    missed = target - values @ atoms - 0.7
    explained = torch.stack([0.3 * atoms[1], 0.6 * atoms[2]])
    variance = (missed - missed.mean(0)).square().mean()
    left = (missed - explained).square().mean() / variance
    spread = 0.5 * 3 * (target - target.mean(0)).square().mean()  # of 3 features
    torch.testing.assert_close(penalty, left * spread)
    penalty.backward()
    torch.testing.assert_close(decoder.bias.grad, torch.zeros(3))  # only the dead learn from it
    moved = decoder.atoms.grad.abs().sum(1) > 0
    assert moved.tolist() == [False, True, True, False]
    bottleneck.idle.zero_()
    assert number(AuxK(1)(context(**parts, decode=decoder, bottleneck=bottleneck))) == 0
    with pytest.raises(ValueError, match="counts dead"):
        AuxK()(context(**parts, decode=decoder, bottleneck=IdentityBottleneck(4)))


# ---- scalings


def test_scalings():
    x = torch.randn(500, 3) * torch.tensor([1.0, 10.0, 0.0]) + 5
    scaling = Standardize([3])
    scaling.fit(x)
    scaled = scaling(x)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]))
    torch.testing.assert_close(scaling.inverse(scaled), x)
    images = torch.randint(0, 256, (20, 3, 4, 4), dtype=torch.uint8)
    span = Span([3, 1, 1])
    span.fit(images)
    assert span(images).amin().item() == 0
    assert span(images).amax().item() == 1
    torch.testing.assert_close(span.shift.flatten(), images.float().amin((0, 2, 3)))
    series = torch.randn(4, 6, 2)
    mask = (torch.arange(6) < 4).expand(4, 6)
    masked, short = Standardize([2]), Standardize([2])
    masked.fit(torch.where(mask[..., None], series, 1e6), mask)
    short.fit(series[:, :4])
    assert torch.equal(masked.shift, short.shift)
    assert torch.equal(masked.scale, short.scale)


# ---- composition


def test_tied_weights_are_the_encoders():
    encoder = MLPEncoder([6], [5], 3, activation="tanh")
    model = Autoencoder(
        encoder, IdentityBottleneck(3), TiedMLPDecoder([6], [5], 3, activation="tanh")
    )
    x = torch.randn(4, 6)
    first, second = encoder.layers[0].weight, encoder.layers[2].weight
    h = encoder(x)
    expected = torch.tanh(h @ second) @ first  # the biases start at 0
    torch.testing.assert_close(model(x).output, expected)
    assert not any("weight" in name for name in model.decoder.state_dict())
    copy = build_autoencoder(model.config)
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy(x).output, model(x).output)
    with pytest.raises(ValueError, match="same shape, hidden and dim"):
        Autoencoder(encoder, IdentityBottleneck(3), TiedMLPDecoder([6], [4], 3))


def test_a_dictionary_starts_as_its_transpose_and_keeps_unit_atoms():
    model = Autoencoder(
        DictionaryEncoder([6], 9), TopK(9, 2), DictionaryDecoder([6], 9), likelihood="gaussian"
    )
    assert torch.equal(model.encoder.layer.weight, model.decoder.atoms)
    with torch.no_grad():
        model.decoder.atoms.mul_(5.0)
    one = model.decoder(torch.eye(9)) - model.decoder.bias
    torch.testing.assert_close(one.norm(dim=1), torch.ones(9))


def test_dimensions_must_fit():
    with pytest.raises(ValueError, match="bottleneck takes 4 and gives 2, the decoder takes 3"):
        Autoencoder(MLPEncoder([6], [], 4), GaussianBottleneck(4, 2), MLPDecoder([6], [], 3))


def test_the_corruption_is_seen_by_the_encoder_alone():
    seen = []

    class Spy(GaussianNoise):
        def forward(self, inputs):
            seen.append(super().forward(inputs))
            return seen[-1]

    model = Autoencoder(
        MLPEncoder([6], [], 3),
        IdentityBottleneck(3),
        MLPDecoder([6], [], 3),
        corruption=Spy(0.5),
        likelihood="gaussian",
    )
    x = torch.randn(8, 6)
    result = model.train()(x)
    expected = Gaussian()(model.decoder(model.encoder(seen[0])), x)
    torch.testing.assert_close(result.losses["reconstruction"], expected)
    model.eval()(x)
    assert len(seen) == 1


def test_weights_follow_their_schedules():
    model = Autoencoder(
        MLPEncoder([6], [], 3),
        GaussianBottleneck(3, 3),
        MLPDecoder([6], [], 3),
        penalties=[L1(), Contractive()],
        loss_weights={"kl": {"start": 0.0, "end": 4.0, "steps": 10}, "l1": 0.5},
    )
    losses = model.train()(torch.randn(5, 6), step=3).losses
    assert list(losses) == ["reconstruction", "kl", "l1", "contractive"]
    total = losses["reconstruction"] + losses["contractive"] + 0.5 * losses["l1"]
    torch.testing.assert_close(model.total_loss(losses, 5), total + 2 * losses["kl"])
    torch.testing.assert_close(model.total_loss(losses), total + 4 * losses["kl"])


def test_the_bundled_models_config_is_still_spelt_the_same():
    tokenizer = Tokenizer.from_pretrained("photo")
    model = tokenizer.autoencoder
    assert model.config == tokenizer.config
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        result = model(x)
        quantized = model.quantizer(model.encoder(x))
        expected = nn.functional.mse_loss(model.decoder(quantized.quantized), x)
    assert torch.equal(result.losses["reconstruction"], expected)
    weighted = expected + 0.025 * quantized.losses["commitment"]
    torch.testing.assert_close(model.total_loss(result.losses), weighted)


def test_a_dictionary_starts_from_samples():
    torch.manual_seed(0)
    encoder, decoder = DictionaryEncoder((4,), 8), DictionaryDecoder((4,), 8)
    samples = torch.randn(30, 4) * torch.tensor([5.0, 0.1, 0.1, 0.1]) + 3
    decoder.start_from(samples)
    torch.testing.assert_close(decoder.atoms.norm(dim=1), torch.ones(8))
    along = decoder.atoms[:, 0].abs()
    assert number(along.median()) > 0.9  # the samples differ along the first axis
    decoder.start_from(samples[:3])  # fewer samples than atoms
    assert len(decoder.atoms.detach().round(decimals=4).unique(dim=0)) == 8
    decoder.pair(encoder)
    assert torch.equal(encoder.layer.weight, decoder.atoms)
