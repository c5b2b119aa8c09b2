import json

import pytest
import torch

from vqtok.nn import DECODERS, ENCODERS, build_decoder, build_encoder
from vqtok.nn.spectral import SpectralDecoder, SpectralEncoder, compress, expand
from vqtok.nn.temporal import BLOCKS, TimeConv, build_blocks, total_context

HOP = 8
SIZES = {"dim": 6, "hop": HOP, "sample_rate": 800}


def randomised(module):
    """Layers start as zeros; give every weight something to do."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module.double().eval()


def stacks(block, causal):
    arguments = {**SIZES, "block": block, "causal": causal}
    return (
        randomised(SpectralEncoder(32, 3, **arguments)),
        randomised(SpectralDecoder(32, 3, **arguments)),
    )


@pytest.fixture(params=[(b, c) for b in BLOCKS for c in (False, True)], ids=str)
def pair(request):
    return stacks(*request.param)


def test_shapes(pair):
    encoder, decoder = pair
    for frames in (0, 1, 7):
        wave = torch.zeros(2, frames * HOP, dtype=torch.float64)
        latents = encoder(wave)
        assert latents.shape == (2, frames, 6)
        assert decoder(latents).shape == wave.shape


def test_what_a_latent_sees_is_its_context(pair):
    """By gradients: not a sample beyond the context, and the sample at its edge."""
    encoder, _ = pair
    wave = torch.randn(1, HOP * 120, dtype=torch.float64, requires_grad=True)
    encoder(wave)[0, 60].sum().backward()
    seen = wave.grad[0].nonzero()
    before, after = encoder.context
    assert seen.min() == 60 * HOP - before
    assert seen.max() == 61 * HOP + after - 1


def test_what_a_sample_sees_is_the_context(pair):
    _, decoder = pair
    latents = torch.randn(1, 120, 6, dtype=torch.float64, requires_grad=True)
    decoder(latents)[0, 60 * HOP : 61 * HOP].sum().backward()
    seen = latents.grad[0].abs().sum(-1).nonzero()
    before, after = decoder.context
    assert seen.min() == 60 - before
    assert seen.max() == 60 + after


def test_causal_stacks_look_ahead_only_for_the_transform():
    encoder, decoder = stacks("conv", True)
    assert encoder.context[1] == HOP // 2
    assert decoder.context[1] == 1


def test_blocks_of_a_sound_are_coded_as_the_whole(pair):
    encoder, decoder = pair
    wave = torch.randn(1, HOP * 100, dtype=torch.float64)
    whole = encoder(wave)
    before, after = encoder.context
    low, high = 40 * HOP - before, 50 * HOP + after
    low, high = low // HOP * HOP, -(-high // HOP) * HOP
    part = encoder(wave[:, low:high])
    torch.testing.assert_close(part[:, 40 - low // HOP :][:, :10], whole[:, 40:50])
    before, after = decoder.context
    part = decoder(whole[:, 40 - before : 50 + after])[:, before * HOP :][:, : 10 * HOP]
    torch.testing.assert_close(part, decoder(whole)[:, 40 * HOP : 50 * HOP])


def test_a_fresh_pair_is_a_transform_codec():
    """With as many latents as coefficients it starts lossless; with fewer, as a low-pass."""
    torch.manual_seed(3)
    wave = torch.nn.functional.pad(torch.randn(1, HOP * 10) * 0.1, (HOP, HOP))
    arguments = {**SIZES, "dim": HOP}
    again = SpectralDecoder(8, 2, **arguments)(SpectralEncoder(8, 2, **arguments)(wave))
    torch.testing.assert_close(again, wave, atol=1e-5, rtol=0)
    encoder, decoder = SpectralEncoder(8, 2, **SIZES), SpectralDecoder(8, 2, **SIZES)
    kept = encoder.mdct(wave)[0]
    kept[..., 6:] = 0
    expected = encoder.mdct.inverse(kept)
    torch.testing.assert_close(decoder(encoder(wave)), expected, atol=1e-5, rtol=0)


def test_compression_inverts_and_keeps_order():
    values = torch.linspace(-3, 3, 1001, dtype=torch.float64) ** 3
    compressed = compress(values)
    torch.testing.assert_close(expand(compressed), values)
    assert (compressed.diff() > 0).all()
    assert compressed[500] == 0
    torch.testing.assert_close(compress(torch.tensor(1.0)), torch.tensor(4 * (1.0001**0.5 - 0.01)))


def test_config_rebuilds_the_stack(pair):
    for stack, build in zip(pair, (build_encoder, build_decoder), strict=True):
        config = json.loads(json.dumps(stack.config))
        again = build(config).double()
        again.load_state_dict(stack.state_dict())
        example = torch.randn(1, HOP * 20, dtype=torch.float64)
        if build is build_decoder:
            example = torch.randn(1, 20, 6, dtype=torch.float64)
        torch.testing.assert_close(again(example), stack(example))
        assert type(again) in (*ENCODERS.values(), *DECODERS.values())


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("causal", [False, True])
def test_time_conv_is_a_convolution(kernel, dilation, causal):
    torch.manual_seed(0)
    layer = TimeConv(3, 4, kernel=kernel, dilation=dilation, causal=causal)
    x = torch.randn(2, 12, 3)
    weight = layer.linear.weight.unflatten(1, (kernel, 3)).transpose(1, 2)
    padded = torch.nn.functional.pad(x.transpose(1, 2), layer.context)
    expected = torch.nn.functional.conv1d(padded, weight, layer.linear.bias, dilation=dilation)
    torch.testing.assert_close(layer(x), expected.transpose(1, 2))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="dim must be at most the hop"):
        SpectralEncoder(8, 1, dim=9, hop=8)
    with pytest.raises(ValueError, match="unknown block 'lstm'"):
        SpectralDecoder(8, 1, dim=8, hop=8, block="lstm")
    with pytest.raises(ValueError, match="kernel must be odd"):
        TimeConv(1, 1, kernel=2)


def test_total_context_adds_up():
    blocks = build_blocks("conv", 4, 4, causal=False)
    assert total_context(blocks) == (1 + 2 + 4 + 1, 1 + 2 + 4 + 1)
    assert total_context(build_blocks("conv", 4, 4, causal=True)) == (16, 0)
