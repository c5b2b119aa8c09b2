"""Recurrent layers along time against a loop, frame by frame."""

import pytest
import torch

from vqtok.nn.temporal import RecurrentBlock


def block(causal, window=8):
    torch.manual_seed(0)
    layer = RecurrentBlock(6, window=window, causal=causal).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def states_by_loop(layer, normed, channels):
    """h_t = (1 - z_t) h_{t-1} + z_t c_t, from zero for each frame, window - 1 frames before it."""
    gate = layer.gate(normed).sigmoid()[..., channels]
    candidate = layer.candidate(normed)[..., channels]
    states = torch.zeros_like(gate)
    for frame in range(normed.shape[1]):
        state = torch.zeros_like(gate[:, 0])
        for t in range(max(0, frame - layer.window + 1), frame + 1):
            state = (1 - gate[:, t]) * state + gate[:, t] * candidate[:, t]
        states[:, frame] = state
    return states


@pytest.mark.parametrize("frames", [0, 1, 7, 8, 30])
@pytest.mark.parametrize("causal", [False, True])
def test_recurrence_is_the_loop(causal, frames):
    layer = block(causal)
    x = torch.randn(2, frames, 6, dtype=torch.float64)
    normed = layer.norm(x)
    if causal:
        states = states_by_loop(layer, normed, slice(None))
    else:
        ahead = states_by_loop(layer, normed.flip(1), slice(3, None)).flip(1)
        states = torch.cat([states_by_loop(layer, normed, slice(3)), ahead], dim=-1)
    # The block computes its states in float32, under autocast too.
    y = x + layer.out(states)
    torch.testing.assert_close(layer(x), y + layer.mix(y), atol=1e-5, rtol=1e-5)


def test_memories_start_from_two_frames_to_the_window():
    for causal in (False, True):
        gates = RecurrentBlock(64, window=16, causal=causal).gate.bias.detach().sigmoid()
        assert gates[0] == pytest.approx(1 / 2)
        assert gates[-1] == pytest.approx(1 / 16)


def test_it_starts_as_the_identity_and_learns():
    layer = RecurrentBlock(6)
    x = torch.randn(1, 40, 6)
    assert torch.equal(layer(x), x)
    layer(x).square().sum().backward()
    assert layer.out.weight.grad.abs().max() > 0


@pytest.mark.parametrize(("channels", "window"), [(5, 8), (6, 12), (6, 1), (6, 0)])
def test_wrong_sizes(channels, window):
    with pytest.raises(ValueError, match="channels must be even and window a power of two"):
        RecurrentBlock(channels, window=window)
