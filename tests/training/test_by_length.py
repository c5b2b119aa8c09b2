import pytest
import torch

from vqtok.autoencoders import Autoencoder
from vqtok.autoencoders.bottlenecks import IdentityBottleneck
from vqtok.autoencoders.scalings import Standardize
from vqtok.nn import RNNDecoder, RNNEncoder
from vqtok.nn.masks import mask_of
from vqtok.training.by_length import by_length, length_table, split_lengths
from vqtok.training.task import Inputs


def model(**kind):
    torch.manual_seed(0)
    symbols = "symbols" in kind
    return Autoencoder(
        RNNEncoder(4, 2, width=8, **kind),
        IdentityBottleneck(4),
        RNNDecoder(4, 2, width=8, max_length=6, **kind),
        likelihood="categorical" if symbols else "gaussian",
        scaling=None if symbols else Standardize([1]),
    ).eval()


def test_symbols(monkeypatch):
    """Answers that are known: one right, one too long, one wrong at the end, one cut off."""
    built = model(symbols=5)
    values = torch.tensor([[1, 4, 0, 0], [2, 4, 0, 0], [1, 2, 3, 4], [3, 3, 3, 4]])
    mask = mask_of(torch.tensor([2, 2, 4, 4]))
    answers = torch.tensor([[1, 4, 0, 0, 0], [2, 2, 4, 0, 0], [1, 2, 3, 4, 0], [3, 0, 3, 0, 0]])
    monkeypatch.setattr(built, "inverse_transform", lambda _: answers)
    short, long = by_length(built, Inputs(values, mask), ranges=2)
    assert (short.shortest, short.longest, short.count) == (2, 3, 2)
    assert (long.shortest, long.longest, long.count) == (4, 4, 2)
    assert short.wrong == pytest.approx(1 / 4)
    assert long.wrong == pytest.approx(2 / 8)
    assert (short.exact, long.exact) == (0.5, 0.5)
    nats = -built.score_samples(values, mask)
    assert long.nats_per_step == pytest.approx(float(nats[2:].sum() / 8))
    assert "2-3          2" in length_table([short, long])


def test_sequences_without_an_end_must_not_go_on(monkeypatch):
    built = model(symbols=5)
    values = torch.tensor([[1, 2], [3, 3]])
    monkeypatch.setattr(
        built, "inverse_transform", lambda _: torch.tensor([[1, 2, 0, 0], [3, 3, 1, 0]])
    )
    (score,) = by_length(built, Inputs(values))
    assert score.wrong == 0
    assert score.exact == 0.5


def test_values(monkeypatch):
    built = model(channels=1)
    values = torch.randn(6, 5, 1) * 3 + 7
    mask = mask_of(torch.tensor([5, 5, 5, 2, 2, 1]))
    built.scaling.fit(values, mask)
    wrong = torch.where(mask[..., None], values + 0.5, -99.0)
    monkeypatch.setattr(built, "reconstruct", lambda *_: wrong)
    scores = by_length(built, Inputs(values, mask), ranges=2)
    mean = values[mask].mean()
    for score, rows in zip(scores, (slice(3, 6), slice(0, 3)), strict=True):
        kept = values[rows][mask[rows]]
        assert score.wrong == pytest.approx(
            float(0.25 * len(kept) / (kept - mean).square().sum()), rel=1e-3
        )
        assert score.exact is None
    assert "unexplained" in length_table(scores)


@pytest.mark.parametrize(
    ("lengths", "ranges", "expected"),
    [
        ([3] * 9, 4, [(3, 3)]),
        ([1, 2, 3, 4], 4, [(1, 1), (2, 2), (3, 3), (4, 4)]),
        ([1, 1, 1, 9], 2, [(1, 9)]),
        ([5, 1, 9, 7], 2, [(1, 6), (7, 9)]),
        ([4], 3, [(4, 4)]),
    ],
)
def test_ranges_cover_all_lengths(lengths, ranges, expected):
    assert split_lengths(lengths, ranges) == expected
