import pytest
import torch

from vqtok.nn import ConvDecoder, ConvEncoder, build_decoder, build_encoder
from vqtok.nn.conv import dct_basis

SIZES = {"channels": (6, 8), "blocks": (1, 2), "patch": 2, "dim": 5}


def randomised(module):
    """Blocks start as the identity; give every weight something to do."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module.eval()


def test_shapes():
    encoder, decoder = ConvEncoder(**SIZES), ConvDecoder(**SIZES)
    assert encoder.downsample == decoder.downsample == 4
    latents = encoder(torch.zeros(2, 3, 20, 28))
    assert latents.shape == (2, 5, 7, 5)
    assert decoder(latents).shape == (2, 3, 20, 28)


def test_encoder_context_is_what_a_latent_sees():
    """By the gradient of one latent: nothing beyond `context` pixels around its block."""
    encoder = randomised(ConvEncoder(**SIZES)).double()
    images = torch.randn(1, 3, 100, 100, dtype=torch.float64, requires_grad=True)
    encoder(images)[0, 12, 12].sum().backward()
    seen = images.grad[0].abs().sum(0).nonzero()
    low, high = 12 * 4 - encoder.context, 13 * 4 + encoder.context
    assert seen.min() >= low
    assert seen.max() < high
    assert seen.min() <= low + encoder.downsample  # and the bound is not loose


def test_decoder_context_is_what_a_pixel_sees():
    decoder = randomised(ConvDecoder(**SIZES)).double()
    latents = torch.randn(1, 30, 30, 5, dtype=torch.float64, requires_grad=True)
    decoder(latents)[0, :, 60:64, 60:64].sum().backward()  # the block of latent (15, 15)
    seen = latents.grad[0].abs().sum(-1).nonzero()
    margin = -(-decoder.context // decoder.downsample)
    assert seen.min() >= 15 - margin
    assert seen.max() <= 15 + margin
    assert seen.min() <= 15 - margin + 1


def test_a_fresh_stack_is_the_cosine_transform():
    """Against scipy-style formulas: the AE starts as the projection onto 16 DCT functions."""
    encoder, decoder = ConvEncoder((6, 8), (1, 1), dim=16), ConvDecoder((6, 8), (1, 1), dim=16)
    images = torch.rand(1, 3, 16, 24) * 2 - 1
    latents = encoder(images)
    # The first function is the mean of all colours, scaled to unit norm over 3 * 64 values.
    means = images.unfold(2, 8, 8).unfold(3, 8, 8).mean((1, 4, 5))
    torch.testing.assert_close(latents[..., 0], means * (3 * 64) ** 0.5)
    once = decoder(latents)
    torch.testing.assert_close(decoder(encoder(once)), once, atol=1e-5, rtol=0)
    assert (once - images).square().sum() < images.square().sum()


@pytest.mark.parametrize(
    ("dim", "channels", "side"), [(1, 3, 8), (16, 3, 8), (12, 3, 2), (9, 1, 4)]
)
def test_dct_basis_is_orthonormal(dim, channels, side):
    basis = dct_basis(dim, channels, side)
    assert basis.shape == (dim, channels * side**2)
    torch.testing.assert_close(basis @ basis.T, torch.eye(dim), atol=1e-5, rtol=0)


def test_config_rebuilds_the_stack():
    for stack, build in (
        (ConvEncoder(**SIZES), build_encoder),
        (ConvDecoder(**SIZES), build_decoder),
    ):
        copy = build(stack.config)
        copy.load_state_dict(stack.state_dict())
        assert copy.config == stack.config


def test_wrong_configs():
    with pytest.raises(ValueError, match="must pair up"):
        ConvEncoder((8, 16), (1,))
    with pytest.raises(ValueError, match="unknown encoder type 'x'"):
        build_encoder({"type": "x"})
