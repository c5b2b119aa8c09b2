import json

import numpy as np
import pytest
import torch

from vqtok.autoencoders import Autoencoder
from vqtok.autoencoders.options import Options
from vqtok.autoencoders.seq2seq import seq2seq_rnn, seq2seq_transformer
from vqtok.errors import UsageError
from vqtok.media.text import symbols_text, text_symbols
from vqtok.training.fit import default_config
from vqtok.training.fit_sequences import as_sequences, fit_sequences, split_sequences
from vqtok.training.sequences import padded

SMALL = Options(hidden=(32,), code_size=8)
WORDS = ["aha", "bird", "codex", "do", "elephant", "fig", "grape", "house"]


@pytest.fixture(autouse=True)
def one_thread():
    """The models are too small for more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def waves(count=40, length=24, channels=2, seed=0):
    generator = np.random.default_rng(seed)
    phase = generator.uniform(0, 6, (count, 1, 1)) + np.arange(length)[:, None] / 4
    return np.sin(phase + np.arange(channels)) * 3 + 10


def config(**changes):
    return default_config(**{"steps": 60, "batch_size": 16, "clip": 1.0, **changes})


@pytest.mark.parametrize(
    ("make", "bottleneck"), [(seq2seq_rnn, "vq"), (seq2seq_transformer, "fsq")]
)
def test_text_goes_through_a_codebook_and_back(make, bottleneck, tmp_path):
    """The same bytes, from codes alone, after saving and loading."""
    model = make((9,), SMALL, symbols=257, latents=4, bottleneck=bottleneck)
    settings = config(steps=250, learning_rate=5e-3)
    fitted = fit_sequences(model, WORDS * 4, settings, held_out=0.0, out=tmp_path)
    codes = Autoencoder.from_pretrained(tmp_path).transform(*batch_of(WORDS))
    assert codes.dtype == torch.int64
    assert codes.shape == (8, 4, 1)
    back = fitted.model.inverse_transform(codes)
    assert [symbols_text(row).decode() for row in back] == WORDS
    assert [score.exact for score in fitted.lengths] == [1.0] * len(fitted.lengths)
    assert fitted.baselines["symbols alone"] > fitted.lengths[0].nats_per_step
    assert "exact" in str(fitted)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["by_length"][0]["exact"] == 1.0


def batch_of(texts):
    batch = padded([text_symbols(text) for text in texts])
    return batch.values, batch.mask


def test_series_beside_pca_and_the_mean():
    model = seq2seq_rnn((24, 2), SMALL, latents=2, decoder="parallel")
    series = waves()
    fitted = fit_sequences(model, series, config(steps=150, learning_rate=5e-3), name="waves")
    own, pca, mean = fitted.baselines.values()
    assert list(fitted.baselines) == ["waves", "PCA, 16 components", "mean"]
    assert mean == pytest.approx(1, abs=0.2)
    assert pca < 0.01  # a wave of one frequency lies in a plane
    assert own < 0.2
    assert fitted.lengths[0].wrong == pytest.approx(own, rel=1e-3)
    assert (fitted.lengths[0].shortest, fitted.lengths[0].count) == (24, 256)
    assert "unexplained" in str(fitted)
    assert fitted.model.reconstruct(series[:3].astype("float32")).shape == (3, 24, 2)


def test_lengths_of_their_own_and_a_threshold():
    series = [wave[: 3 + place % 20] for place, wave in enumerate(waves())]
    model = seq2seq_transformer((24, 2), SMALL, latents=2)
    fitted = fit_sequences(model, series, config(steps=20), contamination=0.25)
    assert len(fitted.lengths) > 1
    assert fitted.model.threshold is not None
    assert fitted.facts()["threshold"] == fitted.model.threshold
    again = fit_sequences(model, series, config(steps=20), contamination=0.25)
    assert again.model.fingerprint == fitted.model.fingerprint


def test_names_build_for_the_data():
    fitted = fit_sequences(
        "seq2seq-transformer",
        [waves(1, 300)[0]],
        config(steps=2),
        hidden=(16,),
        latents=3,
        decoder="parallel",
    )
    assert fitted.model.transform(waves(2, 50).astype("float32")).shape == (2, 3, 8)
    assert fitted.lengths[0].shortest == 128
    text = fit_sequences("seq2seq-rnn", ["abc" * 9], config(steps=2), length=8, hidden=(16,))
    assert text.model.decoder.symbols == 257


def test_a_run_is_resumed(tmp_path):
    model = seq2seq_rnn((24, 2), SMALL, latents=2, bottleneck="gaussian")
    settings = config(steps=6, save_every=3)
    whole = fit_sequences(model, waves(), settings, out=tmp_path / "a")
    fit_sequences(model, waves(), settings, out=tmp_path / "b")
    again = fit_sequences(model, waves(), settings, out=tmp_path / "b")
    assert again.model.fingerprint == whole.model.fingerprint


def test_what_is_held_out():
    long = np.arange(100.0)[:, None]
    train, rest = split_sequences([long], 0.2, 10, 0)
    assert len(train[0]) == 80
    assert rest[0][0, 0] == 80
    assert split_sequences([long], 0.05, 10, 0)[1] is None  # no window fits
    many = [np.full((3, 1), place) for place in range(50)]
    train, rest = split_sequences(many, 0.2, 10, 0)
    assert len(rest) == 10
    assert sorted(int(one[0, 0]) for one in [*train, *rest]) == list(range(50))
    assert split_sequences(many[:19], 0.2, 10, 0)[1] is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "no sequences"),
        (["a", ""], "a text is empty"),
        ([np.zeros((3, 2)), np.zeros((3, 1))], r"float64 \[3, 1\], float64 \[3, 2\]"),
        ([np.zeros(3)], r"not float64 \[3\]"),
        ([np.full((3, 1), np.nan)], "sequence 0 is empty or holds NaN"),
        (["a", np.zeros((3, 1))], "must be texts, or numbers"),
    ],
)
def test_wrong_data(data, message):
    with pytest.raises(UsageError, match=message):
        as_sequences(data)


def test_wrong_models_and_settings():
    model = seq2seq_rnn((24, 2), SMALL)
    with pytest.raises(UsageError, match="1 channels, the model is of 2 channels"):
        fit_sequences(model, waves(channels=1))
    with pytest.raises(UsageError, match="texts need symbols=257, the model is of real values"):
        fit_sequences(model, WORDS)
    with pytest.raises(UsageError, match=r"settings \['latents'\] need the name"):
        fit_sequences(model, waves(), latents=3)
    with pytest.raises(UsageError, match="contamination must be"):
        fit_sequences(model, waves(), contamination=1.5)
    with pytest.raises(ValueError, match="bottleneck must be one of"):
        seq2seq_rnn((24, 2), SMALL, bottleneck="x")
    with pytest.raises(ValueError, match=r"sequences are \[T, C\]"):
        seq2seq_rnn((24,), SMALL)
    with pytest.raises(ValueError, match="symbols take no noise"):
        seq2seq_rnn((24,), Options(noise=0.1), symbols=5)
    with pytest.raises(ValueError, match="decoder must be one of"):
        seq2seq_transformer((24, 2), SMALL, decoder="x")
