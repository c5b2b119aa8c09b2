"""Who learns in a run: a module and the optimizer that moves it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vqtok.training.config import TrainConfig


@dataclass(frozen=True)
class Player:
    """A module and its optimizer, which runs over ``module.parameters()`` in order."""

    module: nn.Module
    optimizer: torch.optim.AdamW

    def set_learning_rate(self, rate: float) -> None:
        """The learning rate of every group from now on."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def tensors(self) -> dict[str, Tensor]:
        """Weights, buffers (``model.*``) and the optimizer's state (``optimizer.*``)."""
        tensors = {f"model.{name}": tensor for name, tensor in self.module.state_dict().items()}
        for name, parameter in self.module.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
        return tensors

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put back what :meth:`tensors` gave; RuntimeError, KeyError if it is another module's."""
        self.module.load_state_dict(under("model.", tensors))
        state = under("optimizer.", tensors)
        for name, parameter in self.module.named_parameters():
            self.optimizer.state[parameter] = {
                key.split(".", 1)[0]: _like(parameter, tensor)
                for key, tensor in state.items()
                if key.split(".", 1)[1] == name
            }


def model_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over all parameters."""
    return torch.optim.AdamW(
        model.parameters(), betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True
    )


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {
        key.removeprefix(prefix): tensor
        for key, tensor in tensors.items()
        if key.startswith(prefix)
    }


def _like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """In the parameter's memory layout: the fused optimizer walks both in storage order."""
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)
