"""What every sequence stack promises, for both kinds of sequences."""

import pytest
import torch

from vqtok.nn.conv1d import Conv1dDecoder, Conv1dEncoder, stretches
from vqtok.nn.generation import greedy, sampled
from vqtok.nn.masks import mask_of, zero_padding
from vqtok.nn.parallel import ParallelDecoder
from vqtok.nn.rnn import RNNDecoder, RNNEncoder
from vqtok.nn.sequence import position_codes
from vqtok.nn.transformer import TransformerDecoder, TransformerEncoder

ENCODERS = {
    "gru": (RNNEncoder, {"width": 16, "depth": 2}),
    "lstm": (RNNEncoder, {"width": 16, "cell": "lstm"}),
    "transformer": (TransformerEncoder, {"width": 16, "depth": 2, "heads": 2, "max_length": 12}),
    "conv1d": (Conv1dEncoder, {"width": 16, "depth": 2, "max_length": 30}),
}
DECODERS = {
    "gru": (RNNDecoder, {"width": 16, "depth": 2, "max_length": 12}),
    "lstm": (RNNDecoder, {"width": 16, "cell": "lstm", "max_length": 12}),
    "transformer": (TransformerDecoder, {"width": 16, "depth": 2, "heads": 2, "max_length": 12}),
    "parallel": (ParallelDecoder, {"width": 16, "depth": 3, "heads": 2, "max_length": 12}),
    "conv1d": (Conv1dDecoder, {"width": 16, "depth": 2, "max_length": 12}),
}
KINDS = {"values": {"channels": 3}, "symbols": {"symbols": 7}}
LENGTHS = torch.tensor([9, 1, 5, 2])
MASK = mask_of(LENGTHS)

encoders = pytest.mark.parametrize("name", ENCODERS)
decoders = pytest.mark.parametrize("name", DECODERS)
kinds = pytest.mark.parametrize("kind", KINDS)


def encoder(name, kind):
    torch.manual_seed(0)
    build, sizes = ENCODERS[name]
    return build(5, 4, **KINDS[kind], **sizes).eval()


def decoder(name, kind):
    torch.manual_seed(1)
    build, sizes = DECODERS[name]
    return build(5, 4, **KINDS[kind], **sizes).eval()


def sequences(kind, batch=4, length=9, seed=2):
    generator = torch.Generator().manual_seed(seed)
    if kind == "symbols":
        return torch.randint(0, 6, (batch, length), generator=generator)
    return torch.randn(batch, length, 3, generator=generator)


def spoilt(kind, x, mask):
    """The same with rubbish in its padding."""
    rubbish = torch.full_like(x, -5 if kind == "symbols" else float("nan"))
    return torch.where(mask.reshape(mask.shape + (1,) * (x.ndim - 2)), x, rubbish)


@kinds
@encoders
def test_latents_are_a_fixed_number_of_vectors(name, kind):
    stack = encoder(name, kind)
    for length in (1, 9, 30):
        assert stack(sequences(kind, length=length)).shape == (4, 4, 5)


@kinds
@encoders
def test_padding_changes_nothing(name, kind):
    stack, x = encoder(name, kind), sequences(kind)
    latents = stack(x, MASK)
    assert torch.equal(stack(spoilt(kind, x, MASK), MASK), latents)
    shuffled = x.clone()
    shuffled[1, 1:] = x[1, 1:].flip(0)
    assert not torch.equal(shuffled, x)
    assert torch.equal(stack(shuffled, MASK), latents)
    for index, length in enumerate(LENGTHS.tolist()):
        alone = stack(x[index : index + 1, :length])
        torch.testing.assert_close(alone[0], latents[index], atol=1e-5, rtol=1e-4)


@kinds
@encoders
def test_padding_gets_no_gradient_and_breaks_none(name, kind):
    stack, x = encoder(name, kind), spoilt(kind, sequences(kind), MASK)
    if kind == "values":
        x.requires_grad_()
    stack(x, MASK).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in stack.parameters())
    if kind == "values":
        assert (x.grad[~MASK] == 0).all()
        assert (x.grad[MASK].abs().sum(-1) > 0).all()


@kinds
@encoders
def test_order_counts(name, kind):
    stack, x = encoder(name, kind), sequences(kind)
    assert not torch.allclose(stack(x), stack(x.flip(1)), atol=1e-3)


@kinds
@decoders
def test_an_output_knows_nothing_of_its_target(name, kind):
    """Neither of what it is to say, nor of what follows, nor of other sequences."""
    stack, target = decoder(name, kind), sequences(kind)
    latents = torch.randn(4, 4, 5)
    output = stack(latents, target)
    assert output.shape == (4, 9, 7 if kind == "symbols" else 3)
    other = sequences(kind, seed=3)
    for place in (0, 4, 8):
        changed = target.clone()
        changed[:, place:] = other[:, place:]
        assert torch.equal(stack(latents, changed)[:, : place + 1], output[:, : place + 1])
    changed = target.clone()
    changed[0] = other[0]
    assert torch.equal(stack(latents, changed)[1:], output[1:])
    if stack.reads_target:
        assert not torch.allclose(stack(latents, changed)[0, 1:], output[0, 1:], atol=1e-4)
    else:
        assert torch.equal(stack(latents, changed), output)


@kinds
@decoders
def test_generation_says_what_it_would_have_been_taught(name, kind):
    """Fed its own words as the target, a decoder has the outputs that made it say them."""
    stack, latents = decoder(name, kind), torch.randn(4, 4, 5) * 3
    made = stack.generate(latents, LENGTHS)
    assert torch.equal(made.mask, MASK)
    assert torch.equal(made.lengths, LENGTHS)
    assert (made.sequences[~MASK] == 0).all()
    whole = stack.generate(latents, torch.full((4,), 9)).sequences
    assert torch.allclose(zero_padding(whole, MASK), made.sequences, atol=1e-5)
    again = greedy(stack.symbols)(stack(latents, whole))
    torch.testing.assert_close(again, whole, atol=1e-5, rtol=1e-4)


@decoders
def test_symbols_stop_at_their_end(name):
    stack = decoder(name, "symbols")
    latents = torch.randn(64, 4, 5, generator=torch.Generator().manual_seed(0)) * 3
    torch.manual_seed(0)
    made = stack.generate(latents, choose=sampled(7))
    assert made.sequences.shape == made.mask.shape
    for words, length in zip(made.sequences.tolist(), made.lengths.tolist(), strict=True):
        if 6 in words:
            assert length == words.index(6) + 1
            assert not any(words[length:])
        else:
            assert length == 12
    assert len(set(made.lengths.tolist())) > 3  # both cases were there
    assert made.mask.shape[1] == made.lengths.max()


@decoders
def test_values_stop_at_the_longest(name):
    made = decoder(name, "values").generate(torch.randn(2, 4, 5))
    assert made.sequences.shape == (2, 12, 3)
    assert made.mask.all()


@decoders
def test_every_latent_counts(name):
    stack = decoder(name, "values")
    latents = torch.randn(2, 4, 5, requires_grad=True)
    output = stack(latents, sequences("values", batch=2, length=12))
    (output if name == "conv1d" else output[:, -1]).square().sum().backward()
    assert (latents.grad.abs().sum(-1) > 0).all()
    with pytest.raises(ValueError, match=r"latents must be \[B, 4, 5\], not \[2, 3, 5\]"):
        stack(torch.zeros(2, 3, 5), sequences("values", batch=2))


@kinds
@pytest.mark.parametrize("table", [ENCODERS, DECODERS], ids=["encoder", "decoder"])
def test_config_rebuilds_the_stack(table, kind):
    for name in table:
        stack = (encoder if table is ENCODERS else decoder)(name, kind)
        arguments = {key: value for key, value in stack.config.items() if key != "type"}
        copy = type(stack)(**arguments)
        copy.load_state_dict(stack.state_dict())
        assert copy.config == stack.config


@encoders
@pytest.mark.parametrize("kind", ["values"])
def test_bfloat16_autocast(name, kind):
    stack, x = encoder(name, kind), sequences(kind)
    with torch.autocast("cpu", torch.bfloat16):
        latents = stack(x, MASK)
        output = decoder(name, kind)(latents, x)
    assert latents.isfinite().all()
    assert output.isfinite().all()
    torch.testing.assert_close(latents.float(), stack(x, MASK), atol=0.1, rtol=0.1)


@encoders
def test_float64_weights(name):
    """And where the rounding of float32 is: near that."""
    double, x = encoder(name, "values").double(), sequences("values").double()
    latents = double(x, MASK)
    assert latents.dtype == torch.float64
    assert decoder(name, "values").double()(latents, x).dtype == torch.float64
    torch.testing.assert_close(
        encoder(name, "values")(x.float(), MASK), latents.float(), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize(("length", "count"), [(17, 8), (12, 4), (128, 2), (7, 7), (5, 1), (3, 8)])
def test_stretches_are_even_and_cover_everything(length, count):
    found = stretches(length, count)
    assert found.shape == (count, -(-length // count))
    assert set(found.flatten().tolist()) == set(range(length))
    steps = found[:, 0].diff()
    assert not len(steps) or int(steps.max() - steps.min()) <= 1


def test_a_convolutional_latent_is_about_its_neighbourhood():
    """Stretches of two steps and two blocks: nothing five or more steps away counts."""
    torch.manual_seed(0)
    encoder = Conv1dEncoder(4, 10, symbols=7, width=16, max_length=20)
    decoder = Conv1dDecoder(4, 10, symbols=7, width=16, max_length=20)
    for parameter in [*encoder.parameters(), *decoder.parameters()]:
        torch.nn.init.normal_(parameter)  # blocks start as the identity
    x = torch.zeros(1, 20, dtype=torch.int64)
    other = x.clone()
    other[0, 9] = 1
    moved = (encoder(x) != encoder(other)).any(-1)[0].nonzero().flatten().tolist()
    assert moved == [3, 4, 5]
    latents = torch.zeros(1, 10, 4)
    changed = latents.clone()
    changed[0, 4] = 1
    heard = decoder(latents, x) != decoder(changed, x)
    assert heard.any(-1)[0].nonzero().flatten().tolist() == [*range(6, 12)]


def test_convolutions_are_built_for_a_length():
    encoder = Conv1dEncoder(4, 2, channels=1, width=16, max_length=6)
    decoder = Conv1dDecoder(4, 2, channels=1, width=16, max_length=6)
    with pytest.raises(ValueError, match="have 7 steps, the model was built for at most 6"):
        encoder(torch.zeros(1, 7, 1))
    with pytest.raises(ValueError, match="have 7 steps, the model was built for at most 6"):
        decoder(torch.zeros(1, 2, 4), torch.zeros(1, 7, 1))
    with pytest.raises(ValueError, match=r"latents must be \[B, 2, 4\], not \[1, 3, 4\]"):
        decoder(torch.zeros(1, 3, 4), torch.zeros(1, 6, 1))
    padded = torch.zeros(1, 9, 1), torch.arange(9)[None] < 4
    assert torch.equal(encoder(*padded), encoder(torch.zeros(1, 4, 1)))


@pytest.mark.parametrize("longest", [10_000, 32])
def test_position_codes_are_their_formula(longest):
    place = torch.arange(5, 37, dtype=torch.double)[:, None]
    turns = torch.polar(torch.ones_like(place), place * longest ** (-torch.arange(8) / 8.0))
    codes = position_codes(32, 16, first=5, longest=longest)
    torch.testing.assert_close(codes, torch.view_as_real(turns).flip(2).flatten(1).float())


def test_every_number_of_a_position_code_moves_within_the_longest_sequence():
    codes = position_codes(32, 64, longest=32)
    assert float((codes.amax(0) - codes.amin(0)).min()) > 0.4


@pytest.mark.parametrize("kind", [TransformerEncoder, TransformerDecoder, ParallelDecoder])
def test_a_config_without_a_longest_period_means_ten_thousand(kind):
    """Models that were saved before there was one say what they said."""
    torch.manual_seed(0)
    stack = kind(4, 2, channels=1, width=16, depth=2, heads=2, max_length=12)
    assert stack.longest_period == stack.config["longest_period"] == 10_000
    inputs = (torch.zeros(1, 5, 1),) if kind is TransformerEncoder else (torch.zeros(1, 2, 4),)
    inputs += () if kind is TransformerEncoder else (torch.zeros(1, 5, 1),)
    other = kind(4, 2, channels=1, width=16, depth=2, heads=2, max_length=12, longest_period=12)
    other.load_state_dict(stack.state_dict())
    assert not torch.allclose(stack(*inputs), other(*inputs), atol=1e-4)


def test_sampling_follows_the_logits():
    torch.manual_seed(0)
    odds = torch.tensor([0.5, 0.3, 0.2])
    drawn = sampled(3, temperature=0.5)(odds.log().expand(20_000, 3))
    expected = odds**2 / (odds**2).sum()
    torch.testing.assert_close(torch.bincount(drawn) / 20_000, expected, atol=0.02, rtol=0)
    noisy = sampled(None, sigma=0.5)(torch.zeros(20_000))
    assert abs(float(noisy.std()) - 0.5) < 0.02


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(4, 8, dtype=torch.bool), r"mask must be bool \[4, 9\]"),
        (torch.ones(4, 9), r"mask must be bool \[4, 9\], not torch.float32"),
        (torch.zeros(4, 9, dtype=torch.bool), "length, at least 1"),
        (MASK.flip(1), "True up to each sequence's length"),
    ],
)
def test_wrong_masks(mask, message):
    with pytest.raises(ValueError, match=message):
        encoder("gru", "values")(sequences("values"), mask)


def test_wrong_inputs():
    with pytest.raises(ValueError, match=r"symbols must be in 0..6, got 0..7"):
        encoder("gru", "symbols")(torch.tensor([[0, 7]]))
    with pytest.raises(ValueError, match=r"integers \[B, T\], not torch.float32"):
        encoder("gru", "symbols")(torch.zeros(1, 4))
    with pytest.raises(ValueError, match=r"float \[B, T, 3\], not"):
        encoder("transformer", "values")(torch.zeros(1, 4, 2))
    with pytest.raises(ValueError, match=r"T >= 1, not \[4, 0, 3\]"):
        encoder("transformer", "values")(torch.zeros(4, 0, 3))
    with pytest.raises(ValueError, match="give channels"):
        RNNEncoder(4, 2)
    with pytest.raises(ValueError, match="give channels"):
        TransformerDecoder(4, 2, channels=1, symbols=5)
    with pytest.raises(ValueError, match="unknown cell 'rnn'"):
        RNNEncoder(4, 2, channels=1, cell="rnn")
    with pytest.raises(ValueError, match="num_latents must be at least 1, not 0"):
        ParallelDecoder(4, 0, channels=1)
    with pytest.raises(ValueError, match="width must be a multiple of 8"):
        RNNDecoder(4, 2, channels=1, width=12)
