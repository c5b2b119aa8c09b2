"""Sequence stacks in the composition: any bottleneck, masks, generation, saving."""

import pytest
import torch

from vqtok.autoencoders import Autoencoder, verbs
from vqtok.autoencoders.bottlenecks import GaussianBottleneck, IdentityBottleneck, TopK
from vqtok.autoencoders.corruptions import GaussianNoise, Masking
from vqtok.autoencoders.likelihoods import Categorical, Gaussian
from vqtok.autoencoders.scalings import Standardize
from vqtok.nn import build_decoder, build_encoder
from vqtok.nn.generation import up_to_end
from vqtok.nn.masks import mask_of
from vqtok.quantizers import FSQ, ProjectedQuantizer, ResidualQuantizer, VectorQuantizer

DIM, LATENTS, LENGTH = 6, 4, 12
PAIRS = [
    ("rnn", "rnn"),
    ("transformer", "transformer"),
    ("transformer", "parallel"),
    ("rnn", "parallel"),
    ("conv1d", "conv1d"),
    ("conv1d", "rnn"),
]
BOTTLENECKS = {
    "identity": lambda: IdentityBottleneck(DIM),
    "gaussian": lambda: GaussianBottleneck(DIM, DIM),
    "top_k": lambda: TopK(DIM, 3),
    "vector": lambda: VectorQuantizer(16, DIM),
    "residual": lambda: ResidualQuantizer([VectorQuantizer(8, DIM) for _ in range(2)]),
    "fsq": lambda: ProjectedQuantizer(FSQ([5, 5]), dim=DIM),
}
CORRUPTIONS = {
    "symbols": lambda: Masking(0.1),
    "values": lambda: GaussianNoise(0.1),
}

pairs = pytest.mark.parametrize("pair", PAIRS, ids="-".join)
kinds = pytest.mark.parametrize("kind", ["symbols", "values"])


def model(pair, kind, bottleneck="identity", seed=0, **changes):
    torch.manual_seed(seed)
    facts = {"dim": DIM, "num_latents": LATENTS, "width": 16, "depth": 2, "max_length": LENGTH + 2}
    facts |= {"symbols": 7} if kind == "symbols" else {"channels": 2}
    short = {key: value for key, value in facts.items() if key != "max_length"}
    return Autoencoder(
        build_encoder({"type": pair[0], **(short if pair[0] == "rnn" else facts)}),
        BOTTLENECKS[bottleneck](),
        build_decoder({"type": pair[1], **facts}),
        likelihood=Categorical() if kind == "symbols" else Gaussian(),
        scaling=None if kind == "symbols" else Standardize([2]),
        **changes,
    )


def data(kind, batch=16, seed=0):
    """Slow waves, or steps through the symbols and then the end; of random lengths."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, LENGTH + 1, (batch,), generator=generator)
    start = torch.randint(0, 6, (batch, 1), generator=generator)
    time = torch.arange(LENGTH)
    mask = mask_of(lengths, LENGTH)
    if kind == "symbols":
        symbols = (start + time * (1 + start % 2)) % 6
        symbols[torch.arange(batch), lengths - 1] = 6
        return symbols, mask
    phase = time / 3 + start
    return torch.stack([phase.sin() * 5 + 9, phase.cos()], -1), mask


def spoilt(x, mask):
    rubbish = torch.full_like(x, float("nan") if x.is_floating_point() else -3)
    return torch.where(mask.reshape(mask.shape + (1,) * (x.ndim - 2)), x, rubbish)


def train(built, x, mask, steps, rate=3e-3):
    optimizer = torch.optim.Adam(built.parameters(), lr=rate)
    losses = []
    built.train()
    for step in range(steps):
        torch.manual_seed(step)
        result = built(x, mask, step=step)
        total = built.total_loss(result.losses, step)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(float(result.losses["reconstruction"].detach()))
    built.eval()
    return losses


@pytest.fixture(autouse=True)
def one_thread():
    """The models are too small for more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
@pairs
def test_any_bottleneck_trains_and_comes_back_from_disk(tmp_path, pair, bottleneck):
    kind = ["symbols", "values"][(PAIRS.index(pair) + list(BOTTLENECKS).index(bottleneck)) % 2]
    built = model(pair, kind, bottleneck, corruption=CORRUPTIONS[kind]())
    x, mask = data(kind)
    if built.scaling is not None:
        built.scaling.fit(x, mask)
    losses = train(built, x, mask, 20)
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])
    built.save_pretrained(tmp_path)
    loaded = Autoencoder.from_pretrained(tmp_path)
    assert torch.equal(loaded.score_samples(x, mask), built.score_samples(x, mask))
    assert torch.equal(loaded.transform(x, mask), built.transform(x, mask))


@kinds
@pairs
def test_padding_changes_nothing(pair, kind):
    built = model(pair, kind, "vector").eval()
    x, mask = data(kind)
    bad = spoilt(x, mask)
    for verb in (built.transform, built.reconstruct, built.score_samples):
        assert torch.equal(verb(bad, mask), verb(x, mask))
    first, second = (built(each, mask).losses for each in (x, bad))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@kinds
@pairs
def test_scores_are_sums_over_time(pair, kind):
    """And a sample's score is what it is alone, without padding."""
    built = model(pair, kind).eval()
    x, mask = data(kind)
    each = built.score_samples(x, mask, per_feature=True)
    assert each.shape == x.shape
    assert (each[~mask] == 0).all()
    total = built.score_samples(x, mask)
    torch.testing.assert_close(each.flatten(1).sum(1), total)
    for index in range(4):
        length = int(mask[index].sum())
        alone = built.score_samples(x[index : index + 1, :length])
        torch.testing.assert_close(alone[0], total[index], rtol=1e-4, atol=1e-4)
    loss = built(x, mask).losses["reconstruction"]
    torch.testing.assert_close(loss, -total.mean())


def test_symbol_scores_are_log_probabilities():
    built = model(("rnn", "rnn"), "symbols").eval()
    x, mask = data("symbols")
    logits = built(x, mask).output.detach().double()
    each = built.score_samples(x, mask, per_feature=True)
    for index, time in ((0, 0), (3, 1)):
        probability = logits[index, time].exp() / logits[index, time].exp().sum()
        assert float(each[index, time]) == pytest.approx(
            float(probability[x[index, time]].log()), abs=1e-5
        )


@pairs
def test_learned_symbols_come_back_by_themselves(pair):
    """Overfitted to a few sequences, codes alone say them, and where they end."""
    built = model(pair, "symbols", seed=1)
    x, mask = data("symbols", batch=8, seed=3)
    train(built, x, mask, 220, rate=6e-3)
    made = built.inverse_transform(built.transform(x, mask))
    expected = torch.where(mask, x, 0)
    assert torch.equal(up_to_end(made, 7).sum(1), mask.sum(1))
    assert torch.equal(made, expected[:, : made.shape[1]])
    assert torch.equal(built.reconstruct(x, mask), expected)


def test_values_are_in_the_units_of_the_data():
    built = model(("rnn", "parallel"), "values", seed=1)
    x, mask = data("values")
    built.scaling.fit(x, mask)
    train(built, x, mask, 200, rate=1e-2)
    again = built.reconstruct(x, mask)
    variance = (x - x[mask].mean(0)).square()[mask].mean(0)
    assert ((again - x).square()[mask].mean(0) < 0.1 * variance).all()
    lengths = mask.sum(1)
    made = built.inverse_transform(built.transform(x, mask), lengths)
    torch.testing.assert_close(made, again[:, : int(lengths.max())])
    assert (again[~mask] == 0).all()
    assert built.inverse_transform(built.transform(x, mask)).shape == (16, LENGTH + 2, 2)


@kinds
@pairs
def test_samples_and_interpolations(pair, kind):
    built = model(pair, kind, "gaussian").eval()
    x, mask = data(kind)
    built.fit_density(x, mask)
    lengths = torch.tensor([3, 1, 12])
    sampled = built.sample(3, lengths=lengths)
    assert sampled.shape[:2] == (3, 12)
    assert torch.equal(sampled, built.sample(3, lengths=lengths))
    line = built.interpolate(x[:3], x[3:6], 4)
    torch.testing.assert_close(line[:, 0], built.reconstruct(x[:3]))
    torch.testing.assert_close(line[:, -1], built.reconstruct(x[3:6]))


def test_many_samples_go_in_parts(monkeypatch):
    """Generated parts differ in length; together they are what they are alone."""
    built = model(("transformer", "parallel"), "symbols", seed=1)
    x, mask = data("symbols", batch=9)
    train(built, x, mask, 30, rate=1e-2)
    values = built.transform(x, mask)
    whole = built.inverse_transform(values)
    monkeypatch.setattr(verbs, "_ROWS", 2)
    parts = built.inverse_transform(values)
    assert torch.equal(parts, whole)
    assert len(up_to_end(whole, 7).sum(1).unique()) > 1


def test_losses_count_valid_steps_only():
    """Nats per sample: the sum over a sequence's own symbols, mean over the batch."""
    built = model(("rnn", "rnn"), "symbols").eval()
    x, mask = data("symbols")
    loss = built(x, mask).losses["reconstruction"].item()
    alone = [
        built(x[i : i + 1, : int(mask[i].sum())]).losses["reconstruction"].item() for i in range(16)
    ]
    assert loss == pytest.approx(sum(alone) / 16, rel=1e-4)
