"""Encoding with a rate weight: fewer bits, the same codes however they come, clear refusals."""

from __future__ import annotations

import pytest
import torch

from vqtok.autoencoders import build_autoencoder, preset_config
from vqtok.errors import UsageError
from vqtok.quantizers import build_quantizer
from vqtok.tokenizer import AudioTokenizer, Tokenizer
from vqtok.tokenizer.choice import additive_tables
from vqtok.training.prior import PriorConfig, train_prior

FAST = PriorConfig(steps=30, batch_size=256, max_bytes=400_000)


def pictures(count: int) -> torch.Tensor:
    rows = torch.arange(120)[:, None] + torch.arange(136)
    phase = torch.arange(3 * count)[:, None, None] * 37
    waves = (rows * (1 + phase % 5) / 9 + phase).sin() * 100 + 128
    return waves.reshape(count, 3, 120, 136).to(torch.uint8)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    model = build_autoencoder(preset_config("photo-tiny"))
    for parameter in model.parameters():
        if parameter.ndim == 4:
            torch.nn.init.normal_(parameter, std=0.1)
    model.quantizer.initialize(model.encoder(pictures(4) / 127.5 - 1))
    found = Tokenizer(model, name="test")
    found.prior = train_prior(found, list(found.encode(pictures(6)).numpy()), FAST)
    return found


def size_of(tokenizer: Tokenizer, codes: torch.Tensor) -> int:
    return sum(len(s) for each in codes.numpy() for s in tokenizer.prior.encode(each))


def test_fewer_bits_for_more_error(tokenizer) -> None:
    x = pictures(2)
    latents = tokenizer.autoencoder.encoder(x / 127.5 - 1)
    sizes, errors = [], []
    for weight in (0.5, 2, 10, 40):
        codes = tokenizer.encode(x, rate_weight=weight)
        assert codes.shape == (2, 15, 17, 2)
        sizes.append(size_of(tokenizer, codes))
        embedded = tokenizer.autoencoder.quantizer.embed(codes)
        errors.append(float((latents - embedded).square().mean()))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.85 * size_of(tokenizer, tokenizer.encode(x))
    assert errors == sorted(errors)


def test_looking_ahead_brings_codes_nearer(tokenizer) -> None:
    x = pictures(3)
    latents = tokenizer.autoencoder.encoder(x / 127.5 - 1)
    nearest, chosen = (
        (latents - tokenizer.autoencoder.quantizer.embed(codes)).square().mean()
        for codes in (tokenizer.encode(x), tokenizer.encode(x, rate_weight=1e-9))
    )
    assert chosen < nearest


def test_a_tiny_weight_gives_the_nearest_codes(tokenizer) -> None:
    x = pictures(2)
    nearest, chosen = (tokenizer.encode(x, num_codebooks=1, rate_weight=w) for w in (0, 1e-9))
    # the grid that choices are made on is coarser than float32
    assert (nearest == chosen).float().mean() > 0.98


def test_codes_depend_on_the_image_alone(tokenizer) -> None:
    x = pictures(3)
    together = tokenizer.encode(x, rate_weight=2)
    assert torch.equal(tokenizer.encode(x[1:2], rate_weight=2), together[1:2])
    first = tokenizer.encode(x, num_codebooks=1, rate_weight=2)
    assert first.shape == (3, 15, 17, 1)


@pytest.fixture(scope="module")
def sounds(audio_tokenizer) -> AudioTokenizer:
    found = AudioTokenizer(audio_tokenizer.autoencoder, name="small", block=20)
    time = torch.arange(64 * 500) / 24000
    wave = torch.stack([(time * f * 6.283).sin() * 0.3 for f in (200, 313, 1000)])[:, None]
    codes = found.encode(wave + 0.05 * torch.randn(wave.shape))
    found.prior = train_prior(found, list(codes.numpy()), FAST)
    return found


def test_the_pieces_a_sound_comes_in_change_nothing(sounds) -> None:
    wave = torch.randn(2, 64 * 90 + 7, generator=torch.Generator().manual_seed(3)) * 0.2
    whole = sounds.encode(wave[None], rate_weight=5)[0]
    assert whole.shape == (91, 2, 3)
    stream = sounds.stream(channels=2, rate_weight=5).encoder
    pieces = [stream.push(piece) for piece in wave.split(1000, dim=1)]
    assert torch.equal(torch.cat([*pieces, stream.finish()]), whole)
    assert size_of(sounds, whole[None]) < size_of(sounds, sounds.encode(wave[None]))


def test_what_is_refused(tokenizer, audio_tokenizer) -> None:
    for weight in (-1, 101, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="rate_weight must be in"):
            tokenizer.encode(pictures(1), rate_weight=weight)
    with pytest.raises(UsageError, match="has no prior, by which rate_weight counts bits"):
        audio_tokenizer.encode(torch.zeros(1, 1, 640), rate_weight=1)
    with pytest.raises(UsageError, match="has no prior"):
        audio_tokenizer.stream(rate_weight=1)


def test_tables_add_up() -> None:
    layer = {"type": "vector", "codebook_size": 8, "dim": 6}
    torch.manual_seed(0)
    for config in (
        layer,
        {"type": "fsq", "levels": [3, 4, 5]},
        {"type": "residual", "layers": [layer] * 3},
        {"type": "grouped", "layers": [layer, {"type": "residual", "layers": [layer] * 2}]},
    ):
        quantizer = build_quantizer(config).eval()
        tables = additive_tables(quantizer)
        sizes = quantizer.codebook_sizes
        codes = torch.stack([torch.randint(0, size, (50,)) for size in sizes], -1)
        expected = sum(table[codes[:, q]] for q, table in enumerate(tables))
        torch.testing.assert_close(quantizer.embed(codes), expected)


def test_codes_that_do_not_add_up_are_refused() -> None:
    layer = {"type": "vector", "codebook_size": 8, "dim": 6}
    quantizer = build_quantizer({"type": "multiscale", "layer": layer, "scales": [1, 2, 4]})
    with pytest.raises(UsageError, match="needs a quantizer whose codebooks add up"):
        additive_tables(quantizer)
