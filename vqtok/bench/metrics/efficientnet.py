"""EfficientNet-Lite0 (Tan and Le, 2019, arXiv:1905.11946; without squeeze-and-excitation)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Of each stage: expansion, width, kernel, stride, how many blocks.
STAGES = (
    (1, 16, 3, 1, 1),
    (6, 24, 3, 2, 2),
    (6, 40, 5, 2, 2),
    (6, 80, 3, 2, 3),
    (6, 112, 5, 1, 3),
    (6, 192, 5, 2, 4),
    (6, 320, 3, 1, 1),
)


class EfficientNetLite0(nn.Module):
    """The classifier without its head: float [B, 3, H, W] in -1..1 to the output of each stage."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Unit(3, 32, 3, stride=2)
        self.stages = nn.ModuleList()
        width = 32
        for expansion, out, kernel, stride, count in STAGES:
            blocks = nn.ModuleList()
            for i in range(count):
                blocks.append(_Block(width, out, expansion, kernel, stride if i == 0 else 1))
                width = out
            self.stages.append(blocks)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        outputs = []
        hidden = self.stem(images)
        for stage in self.stages:
            for block in stage:  # type: ignore[attr-defined]
                hidden = block(hidden)
            outputs.append(hidden)
        return outputs

    def load_published(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights of the PyTorch port by their names there; KeyError where one lacks."""
        self.stem.load_published(weights, "_conv_stem", "_bn0")
        blocks = [block for stage in self.stages for block in stage]  # type: ignore[attr-defined]
        for i, block in enumerate(blocks):
            block.load_published(weights, f"_blocks.{i}.")


class _Unit(nn.Module):
    """A convolution padded as in TensorFlow, batch normalisation and, unless linear, ReLU6."""

    def __init__(
        self, width: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out, eps=1e-3)
        self.kernel, self.stride = kernel, stride

    def forward(self, inputs: Tensor, *, linear: bool = False) -> Tensor:
        pads = []
        for size in (inputs.shape[3], inputs.shape[2]):
            total = max(0, (-(-size // self.stride) - 1) * self.stride + self.kernel - size)
            pads += [total // 2, total - total // 2]
        hidden: Tensor = self.norm(self.conv(F.pad(inputs, pads)))
        return hidden if linear else hidden.clamp(0, 6)

    def load_published(self, weights: Mapping[str, Tensor], conv: str, norm: str) -> None:
        with torch.no_grad():
            self.conv.weight.copy_(weights[f"{conv}.weight"])
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(self.norm, name).copy_(weights[f"{norm}.{name}"])


class _Block(nn.Module):
    """Widen, filter each channel alone, narrow; added to its input where shapes allow."""

    def __init__(self, width: int, out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = width * expansion
        self.expand = _Unit(width, wide, 1) if expansion > 1 else None
        self.depthwise = _Unit(wide, wide, kernel, stride=stride, groups=wide)
        self.project = _Unit(wide, out, 1)
        self.adds = stride == 1 and width == out

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs if self.expand is None else self.expand(inputs)
        hidden = self.project(self.depthwise(hidden), linear=True)
        result: Tensor = hidden + inputs if self.adds else hidden
        return result

    def load_published(self, weights: Mapping[str, Tensor], start: str) -> None:
        if self.expand is not None:
            self.expand.load_published(weights, f"{start}_expand_conv", f"{start}_bn0")
        self.depthwise.load_published(weights, f"{start}_depthwise_conv", f"{start}_bn1")
        self.project.load_published(weights, f"{start}_project_conv", f"{start}_bn2")
