"""Layers on sound stored place by place are torch's, in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtok.nn import padded, seanet
from vqtok.nn.padded import PaddedConv
from vqtok.nn.rows import RowConv, RowUp, pad
from vqtok.nn.seanet import Bottlenecked, Layout
from vqtok.nn.time_norm import TimeNorm

# channels in and out, kernel, stride, padding, dilation, groups
CONVS = {
    "one channel": (1, 8, 7, 1, 3, 1, 1),
    "to one channel": (16, 1, 7, 1, 3, 1, 1),
    "pointwise": (12, 5, 1, 1, 0, 1, 1),
    "wide": (4, 64, 3, 1, 1, 1, 1),
    "strided": (6, 9, 8, 4, 2, 1, 1),
    "dilated": (8, 8, 7, 1, 9, 3, 1),
    "strided and dilated": (5, 70, 3, 2, 2, 2, 1),
    "depthwise": (8, 8, 7, 1, 27, 9, 8),
    "in groups": (8, 4, 3, 1, 1, 1, 2),
}


def by_definition(layer: nn.Module, x: Tensor) -> Tensor:
    """What torch's own layer gives, in float64."""
    double = copy.deepcopy(layer).double()
    base = nn.Conv1d if isinstance(layer, RowConv) else nn.ConvTranspose1d
    result: Tensor = base.forward(double, x.double())
    return result


def check(layer: nn.Module, x: Tensor) -> None:
    expected = by_definition(layer, x)
    for given in (x, x.transpose(1, 2).contiguous().transpose(1, 2)):
        found = layer(given)
        assert found.shape == expected.shape
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
        with torch.no_grad():
            found = layer(given)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
        assert found.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", CONVS)
def test_a_convolution_is_torchs(name: str, batch: int, bias: bool) -> None:
    channels, out, kernel, stride, padding, dilation, groups = CONVS[name]
    torch.manual_seed(0)
    sizes = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    layer = RowConv(channels, out, kernel, **sizes, bias=bias)
    for length in (dilation * (kernel - 1) + 1, 61, 200):
        check(layer, torch.randn(batch, channels, length))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("stride", [1, 2, 5])
def test_a_transposed_convolution_is_torchs(stride: int, batch: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer = RowUp(6, 4, stride, bias=bias)
    for length in (1, 2, 33):
        check(layer, torch.randn(batch, 6, length))
    depthwise = RowUp(6, 6, stride, groups=6, bias=bias)
    x = torch.randn(batch, 6, 33)
    torch.testing.assert_close(depthwise(x).double(), by_definition(depthwise, x))


def test_gradients_are_torchs() -> None:
    torch.manual_seed(0)
    for layer in (RowConv(3, 20, 5, stride=2, padding=2), RowUp(3, 4, 3)):
        x = torch.randn(2, 3, 31, requires_grad=True)
        wanted = torch.autograd.grad(by_definition(layer, x).square().sum(), x)[0]
        found = torch.autograd.grad(layer(x).square().sum(), (x, layer.weight))
        torch.testing.assert_close(found[0], wanted.float(), rtol=1e-4, atol=1e-4)
        assert found[1].shape == layer.weight.shape


def test_tensors_are_torchs_however_they_lie_in_memory() -> None:
    layer, plain = RowConv(4, 6, 3), nn.Conv1d(4, 6, 3)
    assert {k: v.shape for k, v in layer.state_dict().items()} == {
        k: v.shape for k, v in plain.state_dict().items()
    }
    layer.load_state_dict(plain.state_dict())
    for same in (layer, copy.deepcopy(layer)):
        assert torch.equal(same.weight, plain.weight)
        assert same.weight.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
def test_padding_keeps_the_order_in_memory(mode: str) -> None:
    x = torch.randn(2, 9, 5).transpose(1, 2)
    padded = pad(x, 3, 1, mode)
    assert torch.equal(padded, F.pad(x.contiguous(), (3, 1), mode=mode))
    assert padded.transpose(1, 2).is_contiguous()
    assert pad(x, 0, 0, mode) is x


@pytest.mark.parametrize("mean", [0.0, 3.0, -50.0])
@pytest.mark.parametrize("places", [2, 5000])
def test_the_norm_is_group_norm(places: int, mean: float) -> None:
    torch.manual_seed(0)
    layer = TimeNorm(24)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, places, 24).transpose(1, 2) + mean
    expected = nn.GroupNorm.forward(copy.deepcopy(layer).double(), x.double())
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        in_place = layer(x)
    torch.testing.assert_close(in_place.double(), expected, rtol=1e-4, atol=1e-4)
    assert in_place is x


@pytest.mark.parametrize("padding", ["reflect", "constant", "replicate"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("kernel", "stride"), [(7, 1), (8, 4), (10, 5)])
def test_a_padded_convolution_by_pieces_is_that_of_the_whole(
    kernel: int, stride: int, causal: bool, padding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    settings = {"stride": stride, "causal": causal, "padding": padding, "activated": True}
    layer = PaddedConv(6, 9, kernel, **settings)
    double = copy.deepcopy(layer).double()
    pieces: list[int] = []
    layer.conv.register_forward_hook(lambda _, given, __: pieces.append(given[0].shape[-1]))
    monkeypatch.setattr(padded, "PIECE", 6 * 40)
    for length in (1, 2, 30, 80, 81, 399, 400, 401):
        x = torch.randn(2, length, 6).transpose(1, 2)
        given, expected = x.clone(), double(x.double())
        with torch.no_grad():
            pieces.clear()
            found = layer(x)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(x, given)
        if found.shape[-1] >= 80:
            assert len(pieces) == found.shape[-1] // max(40 // stride, kernel)


@pytest.mark.parametrize("length", [1, 7, 5000])
def test_a_normed_block_in_place_is_the_block(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    block = Bottlenecked(12, Layout(12, [2], 4, causal=False, normed=True))
    for value in block.parameters():
        if value.ndim == 1:  # norms begin as the identity
            torch.nn.init.normal_(value)
    x = torch.randn(2, length, 12).transpose(1, 2)
    expected = copy.deepcopy(block).double()(x.double())
    monkeypatch.setattr(seanet, "PIECE", 12 * 999)
    with torch.no_grad():
        found = block(x)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    assert found is x
