import json

import pytest
import torch

from vqtok.nn import build_decoder, build_encoder
from vqtok.nn.waveform import Snake, WaveConv, WaveformDecoder, WaveformEncoder, WaveUp

STRIDES = (2, 5)
HOP = 10


def randomised(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, mean=0.1, std=0.3)
    return module.double().eval()


@pytest.fixture(params=[False, True], ids=["centred", "causal"])
def pair(request):
    arguments = {"dim": 4, "sample_rate": 800, "causal": request.param, "activation": "elu"}
    return (
        randomised(WaveformEncoder(3, STRIDES, **arguments)),
        randomised(WaveformDecoder(3, STRIDES, **arguments)),
    )


def test_shapes(pair):
    encoder, decoder = pair
    for frames in (0, 1, 5):
        wave = torch.zeros(2, frames * HOP, dtype=torch.float64)
        latents = encoder(wave)
        assert latents.shape == (2, frames, 4)
        assert decoder(latents).shape == wave.shape
    with pytest.raises(ValueError, match=r"multiple of 10, not \[1, 15\]"):
        encoder(torch.zeros(1, 15, dtype=torch.float64))


def test_what_a_latent_sees_is_its_context(pair):
    encoder, _ = pair
    wave = torch.randn(1, HOP * 60, dtype=torch.float64, requires_grad=True)
    encoder(wave)[0, 30].sum().backward()
    seen = wave.grad[0].nonzero()
    before, after = encoder.context
    assert seen.min() == 30 * HOP - before
    assert seen.max() == 31 * HOP + after - 1


def test_what_a_sample_sees_is_the_context(pair):
    _, decoder = pair
    latents = torch.randn(1, 100, 4, dtype=torch.float64, requires_grad=True)
    (decoder.layers[:-1](latents.transpose(1, 2))[0, 0, 50 * HOP : 51 * HOP]).sum().backward()
    seen = latents.grad[0].abs().sum(-1).nonzero()
    before, after = decoder.context
    assert seen.min() == 50 - before
    assert seen.max() == 50 + after


def test_causal_stacks_see_nothing_ahead():
    encoder = WaveformEncoder(2, (2, 3), dim=4, causal=True)
    decoder = WaveformDecoder(2, (2, 3), dim=4, causal=True)
    assert encoder.context[1] == decoder.context[1] == 0


def test_published_layout():
    """DAC's 24 kHz model: hop 320, and the parameters of its layers."""
    encoder = WaveformEncoder(64, (2, 4, 5, 8), dim=1024)
    assert encoder.hop == 320
    widths = [64, 128, 256, 512, 1024]
    expected = 64 * 7 + 64 + 1024 * 1024 * 3 + 1024 + 1024
    for width, wider, stride in zip(widths, widths[1:], (2, 4, 5, 8), strict=False):
        unit = width * width * 7 + width * width + 2 * width + 2 * width
        expected += 3 * unit + width + width * wider * 2 * stride + wider
    assert sum(parameter.numel() for parameter in encoder.parameters()) == expected


def test_snake():
    layer = Snake(2)
    with torch.no_grad():
        layer.alpha.copy_(torch.tensor([[0.5], [2.0]]))
    x = torch.linspace(-3, 3, 7).expand(1, 2, 7)
    expected = torch.stack(
        [x[0, i] + torch.sin(a * x[0, i]) ** 2 / a for i, a in enumerate((0.5, 2))]
    )
    torch.testing.assert_close(layer(x)[0], expected)


@pytest.mark.parametrize("stride", [2, 3, 5, 8])
def test_strided_layers_keep_place(stride):
    """An impulse in position p lands in p's own span of the other rate."""
    down = WaveConv(1, 1, 2 * stride, stride=stride)
    up = WaveUp(1, 1, stride)
    with torch.no_grad():
        for layer in (down.conv, up.conv):
            layer.weight.fill_(1.0)
            layer.bias.zero_()
        wave = torch.zeros(1, 1, 10 * stride)
        wave[..., 5 * stride + stride // 2] = 1
        assert down(wave)[0, 0, 5] == 1
        latents = torch.zeros(1, 1, 10)
        latents[..., 5] = 1
        assert (up(latents)[0, 0, 5 * stride : 6 * stride] == 1).all()


def test_config_rebuilds_the_stack(pair):
    for stack, build in zip(pair, (build_encoder, build_decoder), strict=True):
        again = build(json.loads(json.dumps(stack.config))).double()
        again.load_state_dict(stack.state_dict())
        example = torch.randn(1, 40, dtype=torch.float64)
        if build is build_decoder:
            example = torch.randn(1, 8, 4, dtype=torch.float64)
        torch.testing.assert_close(again(example), stack(example))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="strides"):
        WaveformEncoder(4, ())
    with pytest.raises(ValueError, match="unknown activation 'relu'"):
        WaveformDecoder(4, (2,), activation="relu")
