"""The encoder and decoder of EnCodec (SEANet; Défossez et al., 2022, arXiv:2210.13438).

Convolutions over samples with a recurrent layer at the latent rate. The recurrent layer sees all
that came before, so a sound is coded in one piece. Other codecs are made of the same layers, see
:class:`Layout`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtok.nn.rows import RowConv, RowUp, pad
from vqtok.nn.sound import SoundStack
from vqtok.nn.time_norm import Moments, TimeNorm

_PIECE = 1 << 18  # numbers that are worked on at a time


@dataclass(frozen=True)
class Layout:
    """What the layers are.

    Attributes:
        channels: width of the stage at the sample rate; every stage further doubles it.
        strides: of the stages, from the samples on.
        dim: D, the dimension of a latent.
        inputs: channels of a sound.
        recurrent_layers: of the LSTM; 0 for none.
        causal: see only what came before (a latent still waits for its own hop of samples).
        shortcut: whether there is a convolution beside each residual block.
        last_kernel: of the last convolution.
        padding: of the convolutions, ``"reflect"`` or ``"constant"``.
        normed: whether each convolution is followed by a normalisation over channels and time.
    """

    channels: int
    strides: Sequence[int]
    dim: int
    inputs: int = 1
    recurrent_layers: int = 2
    causal: bool = True
    shortcut: bool = True
    last_kernel: int = 7
    padding: str = "reflect"
    normed: bool = False

    def __post_init__(self) -> None:
        if not self.strides or min(self.channels, self.dim, self.inputs, *self.strides) < 1:
            raise ValueError("channels, strides and dim must be positive")

    def conv(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        stride: int = 1,
        activated: bool = False,
    ) -> PaddedConv:
        """A convolution of this layout."""
        return PaddedConv(
            *(channels_in, channels_out, kernel),
            stride=stride,
            causal=self.causal,
            padding=self.padding,
            normed=self.normed,
            activated=activated,
        )

    def encoder(self) -> nn.Sequential:
        """[B, inputs, T] to [B, D, ceil(T / hop)]."""
        width = self.channels
        layers: list[nn.Module] = [self.conv(self.inputs, width, 7)]
        for stride in self.strides:
            layers += [
                Bottlenecked(width, self),
                nn.Identity(),  # the activation's place in the names, which the next layer makes
                self.conv(width, 2 * width, 2 * stride, stride=stride, activated=True),
            ]
            width *= 2
        layers += self._recurrent(width)
        layers += [nn.Identity(), self.conv(width, self.dim, self.last_kernel, activated=True)]
        return nn.Sequential(*layers)

    def decoder(self) -> nn.Sequential:
        """[B, D, n] to [B, inputs, n * hop]."""
        width = self.channels * 2 ** len(self.strides)
        layers: list[nn.Module] = [self.conv(self.dim, width, 7), *self._recurrent(width)]
        for stride in reversed(self.strides):
            layers += [
                nn.ELU(inplace=True),
                TrimmedUp(width, width // 2, stride, causal=self.causal, normed=self.normed),
                Bottlenecked(width // 2, self),
            ]
            width //= 2
        layers += [nn.Identity(), self.conv(width, self.inputs, self.last_kernel, activated=True)]
        return nn.Sequential(*layers)

    def _recurrent(self, width: int) -> list[nn.Module]:
        return [Recurrent(width, self.recurrent_layers)] if self.recurrent_layers else []


class PaddedConv(nn.Module):
    """A convolution of [B, C, T] to ceil(T / stride) places, its input padded at the ends.

    Args:
        channels_in, channels_out, kernel, stride: of the convolution.
        causal: see only what came before.
        padding: ``"reflect"``, ``"constant"`` (zeros) or ``"replicate"``.
        normed: whether a normalisation follows.
        bias: whether there is one.
        activated: whether ELU comes first. (After the padding, which it does not change: in place.)
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        stride: int = 1,
        causal: bool = True,
        padding: str = "reflect",
        normed: bool = False,
        bias: bool = True,
        activated: bool = False,
    ) -> None:
        super().__init__()
        self.activated = activated
        self.conv = RowConv(channels_in, channels_out, kernel, stride=stride, bias=bias)
        self.norm = TimeNorm(channels_out) if normed else nn.Identity()
        self.stride = stride
        self.mode = padding
        total = kernel - stride
        self.padding = (total, 0) if causal else (total - total // 2, total // 2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.padding
        right += -x.shape[-1] % self.stride
        # A sound shorter than what is mirrored gets zeros behind it first.
        short = max(max(left, right) - x.shape[-1] + 1, 0) if self.mode == "reflect" else 0
        if short:
            x = pad(x, 0, short)
        right -= short
        whole = x.device.type != "cpu" or torch.is_grad_enabled() or not (self.activated or left)
        y: Tensor = self.norm((self._at_once if whole else self._by_pieces)(x, left, right))
        return y

    def _at_once(self, x: Tensor, left: int, right: int) -> Tensor:
        padded = pad(x, left, max(right, 0), self.mode)
        if self.activated:
            padded = F.elu(padded, inplace=padded is not x)
        y: Tensor = self.conv(padded[..., : padded.shape[-1] + min(right, 0)])
        return y

    def _by_pieces(self, x: Tensor, left: int, right: int) -> Tensor:
        """The same without a copy of x as large as x: what is padded and activated is used while it
        is in the cache."""
        conv, stride, length = self.conv, self.stride, x.shape[-1]
        kernel = conv.span + 1
        places = (length + left + right - kernel) // stride + 1
        step = max(_PIECE // (x.shape[1] * stride), kernel)
        if places < 2 * step:
            return self._at_once(x, left, right)
        y = x.new_empty(len(x), places, conv.out_channels).transpose(1, 2)
        for first in range(0, places - step + 1, step):
            last = places if places - first < 2 * step else first + step
            begin, end = first * stride - left, (last - 1) * stride + kernel - left
            seen = x[..., max(begin, 0) : end]
            y[..., first:last] = self._at_once(seen, max(-begin, 0), max(end - length, 0))
        return y


class TrimmedUp(nn.Module):
    """A transposed convolution of kernel 2 s: [B, C, T] to [B, C', T s].

    Args:
        channels_in, channels_out, stride: of the convolution.
        causal: give only what later inputs cannot change.
        normed: whether a normalisation follows, before the ends are cut.
        depthwise: each channel by itself, without bias.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        stride: int,
        *,
        causal: bool,
        normed: bool = False,
        depthwise: bool = False,
    ) -> None:
        super().__init__()
        groups = channels_in if depthwise else 1
        self.conv = RowUp(channels_in, channels_out, stride, groups=groups, bias=not depthwise)
        self.norm = TimeNorm(channels_out) if normed else nn.Identity()
        self.stride = stride
        self.cut = 0 if causal else stride - stride // 2

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        return y[..., self.cut : self.cut + x.shape[-1] * self.stride]


class Bottlenecked(nn.Module):
    """``shortcut(x) + conv1(elu(conv3(elu(x))))``, with half the channels between.

    With a normalisation after each convolution, and without gradients, the result is written over
    x, whose place in memory is the largest of all.
    """

    def __init__(self, channels: int, layout: Layout) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Identity(),
            layout.conv(channels, channels // 2, 3, activated=True),
            nn.ELU(inplace=True),
            layout.conv(channels // 2, channels, 1),
        )
        self.shortcut = layout.conv(channels, channels, 1) if layout.shortcut else nn.Identity()
        self.in_place = layout.normed and layout.shortcut

    def forward(self, x: Tensor) -> Tensor:
        if self.in_place and x.device.type == "cpu" and not torch.is_grad_enabled():
            return self._overwrite(x)
        summed: Tensor = self.block(x)
        return summed.add_(self.shortcut(x))

    def _overwrite(self, x: Tensor) -> Tensor:
        last, shortcut = self.block[-1], self.shortcut
        assert isinstance(last, PaddedConv)
        assert isinstance(shortcut, PaddedConv)
        norm, norm_beside = last.norm, shortcut.norm
        assert isinstance(norm, TimeNorm)
        assert isinstance(norm_beside, TimeNorm)
        hidden = self.block[:-1](x)
        step = max(_PIECE // x.shape[1], 1)
        for rows, inner in zip(x.transpose(1, 2), hidden.transpose(1, 2), strict=True):
            moments, seen = Moments(), Moments()
            pieces = list(zip(rows.split(step), inner.split(step), strict=True))
            for piece, narrow in pieces:
                piece.copy_(shortcut.conv.at_places(piece))
                seen.add(piece)
                moments.add(last.conv.at_places(narrow))  # made anew below: faster than kept
            scale, shift = norm.line(moments)
            beside, shift_beside = norm_beside.line(seen)
            for piece, narrow in pieces:
                added = last.conv.at_places(narrow).mul_(scale)
                torch.addcmul(added.add_(shift + shift_beside), piece, beside, out=piece)
        return x


class Recurrent(nn.Module):
    """``x + lstm(x)`` of [B, C, T]."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, layers)

    def forward(self, x: Tensor) -> Tensor:
        seen: Tensor = self.lstm(x.permute(2, 0, 1))[0].permute(1, 2, 0)
        return x + seen


class SEANetStack(SoundStack):
    """What encoder and decoder have in common.

    Args:
        channels: width of the stage at the sample rate; every stage further doubles it.
        strides: of the stages, from the samples on; their product is the hop.
        dim: D, the dimension of a latent.
        sample_rate: in Hz.
        recurrent_layers, causal, shortcut: see :class:`Layout`.
    """

    context = None
    ends = "cut"

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        *,
        dim: int = 128,
        sample_rate: int = 24_000,
        recurrent_layers: int = 2,
        causal: bool = True,
        shortcut: bool = True,
    ) -> None:
        super().__init__()
        if min(sample_rate, recurrent_layers) < 1:
            raise ValueError("sample_rate and layers must be positive")
        self.config = {
            "type": "seanet",
            "channels": channels,
            "strides": list(strides),
            "dim": dim,
            "sample_rate": sample_rate,
            "recurrent_layers": recurrent_layers,
            "causal": causal,
            "shortcut": shortcut,
        }
        self.dim = dim
        self.hop = math.prod(strides)
        self.sample_rate = sample_rate
        self.layers = self._layers(
            Layout(
                channels,
                strides,
                dim,
                recurrent_layers=recurrent_layers,
                causal=causal,
                shortcut=shortcut,
            )
        )

    def _layers(self, layout: Layout) -> nn.Sequential:
        raise NotImplementedError


class SEANetEncoder(SEANetStack):
    """Samples to latents; see :class:`SEANetStack`."""

    def _layers(self, layout: Layout) -> nn.Sequential:
        return layout.encoder()

    def forward(self, wave: Tensor) -> Tensor:
        """float [B, T], full scale 1 -> latents [B, ceil(T / hop), D]."""
        if wave.shape[1] == 0:
            return wave.new_zeros(len(wave), 0, self.dim)
        latents: Tensor = self.layers(wave[:, None])
        return latents.transpose(1, 2)


class SEANetDecoder(SEANetStack):
    """Latents to samples: the mirror of :class:`SEANetEncoder`, with the same arguments."""

    def _layers(self, layout: Layout) -> nn.Sequential:
        return layout.decoder()

    def forward(self, latents: Tensor) -> Tensor:
        """[B, n, D] -> float [B, n * hop]."""
        if latents.shape[1] == 0:
            return latents.new_zeros(len(latents), 0)
        wave: Tensor = self.layers(latents.transpose(1, 2))
        return wave[:, 0]
