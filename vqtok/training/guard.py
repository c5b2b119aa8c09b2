"""When a loss or gradient stops being a number: find out where it began."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn

from vqtok.errors import VqtokError


class NotFiniteError(VqtokError):
    """Training met a NaN or an infinity; the message names the step and the first bad layer."""


def first_bad_layer(model: nn.Module, *inputs: Tensor | None) -> str:
    """Run the model once more and name the first module whose output is not finite."""
    bad: list[str] = []
    handles = []

    def watch(name: str) -> None:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and not bool(output.isfinite().all()):
                bad.append(name)

        handles.append(model.get_submodule(name).register_forward_hook(hook))

    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            return f"parameter {name}"
    for name, module in model.named_modules():
        if name and not list(module.children()):
            watch(name)
    was_training = model.training
    try:
        model.eval()
        # The quantizer refuses latents that are not finite; by then the layer is known.
        with torch.no_grad(), contextlib.suppress(ValueError):
            model(*inputs)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return f"layer {bad[0]}" if bad else "the losses or their gradients"


def first_bad_gradient(model: nn.Module) -> str | None:
    """The first parameter whose gradient is not finite."""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
            return f"gradient of {name}"
    return None
