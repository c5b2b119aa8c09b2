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
from torch import Tensor, nn

from vqtok.nn.padded import PIECE, PaddedConv, TrimmedUp
from vqtok.nn.sound import SoundStack
from vqtok.nn.time_norm import Moments, TimeNorm


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
        step = max(PIECE // x.shape[1], 1)
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
