"""Starting from the weights of another model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vqtok.autoencoders import Autoencoder
from vqtok.errors import UsageError

_LEARNING = ("decay", "gradient", "kmeans_iterations", "revive_below", "penalties")


def load_weights(model: Autoencoder, source: Autoencoder) -> None:
    """Copy the weights of a model with the same stacks and quantizer.

    The model may have more residual codebooks than the source: the further ones keep their start,
    which is k-means on what the others leave of the first batch. How losses are weighed and how
    codebooks learn may differ.

    Raises:
        UsageError: the models differ in anything else.
    """
    ours, theirs = _comparable(model.config), _comparable(source.config)
    layers, fewer = ours.pop("codebooks"), theirs.pop("codebooks")
    if layers[: len(fewer)] != fewer:
        raise UsageError(f"those weights have {len(fewer)} codebooks that the model has not")
    other = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if other:
        raise UsageError(f"those weights are of a model with another {', '.join(other)}")
    added = tuple(f"quantizer.layers.{index}." for index in range(len(fewer), len(layers)))
    start = {key: value for key, value in model.state_dict().items() if key.startswith(added)}
    model.load_state_dict({**source.state_dict(), **start})


def _comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without how losses are weighed, and with the residual codebooks by themselves."""
    losses = ("loss_weights", "reconstruction_loss", "likelihood")
    kept = {key: value for key, value in config.items() if key not in losses}
    likelihood = config.get("likelihood") or {"type": config["reconstruction_loss"]}
    if likelihood["type"] == "sound":
        likelihood = {"type": "sound", "sample_rate": likelihood["sample_rate"]}
    plain = likelihood["type"] in ("mse", "charbonnier", "picture")  # all of plain values
    kept["likelihood"] = "plain" if plain else likelihood
    quantizer = _without_learning(kept.get("quantizer") or {})
    codebooks = []
    if quantizer.get("type") in ("residual", "beam_residual"):  # how codes are found is no weight
        codebooks = [_without_learning(layer) for layer in quantizer["layers"]]
        quantizer = {"type": "residual"}
    return {**kept, "codebooks": codebooks, "quantizer": quantizer}


def _without_learning(quantizer: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in quantizer.items() if key not in _LEARNING}
