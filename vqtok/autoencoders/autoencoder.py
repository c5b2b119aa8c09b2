"""The one composition behind every variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vqtok.autoencoders.bottlenecks import BOTTLENECKS, Bottleneck, Squeezed
from vqtok.autoencoders.corruptions import CORRUPTIONS, Corruption
from vqtok.autoencoders.density import LatentDensity
from vqtok.autoencoders.likelihoods import LIKELIHOODS, Likelihood
from vqtok.autoencoders.penalties import PENALTIES, Context, Penalty
from vqtok.autoencoders.precision import at_least_float32
from vqtok.autoencoders.registry import build
from vqtok.autoencoders.scalings import SCALINGS, Scaling
from vqtok.autoencoders.schedule import Schedule, at_step, check_schedule
from vqtok.autoencoders.verbs import Verbs
from vqtok.nn import Stack, build_decoder, build_encoder
from vqtok.nn.masks import zero_padding
from vqtok.nn.sequence import SequenceDecoder
from vqtok.quantizers import Quantizer, build_quantizer


@dataclass(frozen=True)
class Reconstruction:
    """What an autoencoder makes of a batch.

    Attributes:
        output: of the decoder, shaped like the input (logits, for some likelihoods).
        latents: [..., D], what the encoder gave the bottleneck.
        codes: int64 [..., Q] if the bottleneck is a quantizer.
        losses: unweighted scalar terms, ``reconstruction`` first. Reconstruction and ``kl`` are in
            nats per sample, unless the likelihood is a plain error.
        metrics: detached tensors of the bottleneck.
    """

    output: Tensor
    latents: Tensor
    codes: Tensor | None
    losses: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Autoencoder(Verbs):
    """Encoder, bottleneck and decoder with their losses.

    ================= ================== ======================= ===========================
    variant           corruption         bottleneck              penalties
    ================= ================== ======================= ===========================
    vanilla           --                 identity                --
    sparse            --                 TopK, BatchTopK, ...    AuxK, or L1, KLRho
    denoising         any                any                     --
    contractive       --                 identity                Contractive, Hutchinson...
    VAE, beta-VAE     --                 Gaussian                -- (``loss_weights["kl"]``)
    VQ-VAE and kin    --                 any quantizer           --
    ================= ================== ======================= ===========================

    Any mix works. What can be done with one: :class:`vqtok.autoencoders.verbs.Verbs`.

    Args:
        encoder: samples [B, ...] to latents [..., D].
        bottleneck: between them.
        decoder: values [..., D'] to samples.
        corruption: what happens to the encoder's inputs in training.
        likelihood: of the data given the decoder's output; or the name of one without arguments.
        penalties: further losses of training.
        loss_weights: the weight of each named term in the total, perhaps a schedule; terms that
            are not named weigh 1.
        scaling: of the data; None leaves them.

    Raises:
        ValueError: the parts do not fit together.
    """

    encoder: Stack
    decoder: Stack
    quantizer: Quantizer

    def __init__(
        self,
        encoder: Stack,
        bottleneck: Bottleneck | Quantizer,
        decoder: Stack,
        *,
        corruption: Corruption | None = None,
        likelihood: Likelihood | str = "mse",
        penalties: Sequence[Penalty] = (),
        loss_weights: Mapping[str, Schedule] | None = None,
        scaling: Scaling | None = None,
    ) -> None:
        super().__init__()
        if isinstance(likelihood, str):
            likelihood = build("likelihood", LIKELIHOODS, {"type": likelihood})
        _check_dims(encoder, bottleneck, decoder)
        self.encoder = encoder
        # The name that weights are saved under: that of the config's key.
        self._modules["quantizer" if isinstance(bottleneck, Quantizer) else "bottleneck"] = (
            bottleneck
        )
        self.decoder = decoder
        self.corruption = corruption
        self.likelihood = likelihood
        self.penalties = nn.ModuleList(penalties)
        self.scaling = scaling
        self.density: LatentDensity | None = None
        self.loss_weights = dict(loss_weights or {})
        for name, weight in self.loss_weights.items():
            check_schedule(f"loss weight {name!r}", weight)
        pair = getattr(decoder, "pair", None)
        if pair is not None:
            pair(encoder)

    @property
    def bottleneck(self) -> Bottleneck | Quantizer:
        """The module between encoder and decoder."""
        found = self._modules["quantizer" if "quantizer" in self._modules else "bottleneck"]
        assert isinstance(found, (Bottleneck, Quantizer))
        return found

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able description, from which :func:`build_autoencoder` rebuilds the modules.

        Parts at their default are left out: a config written by an older version stays equal.
        """
        kind = "quantizer" if isinstance(self.bottleneck, Quantizer) else "bottleneck"
        config: dict[str, Any] = {
            "encoder": self.encoder.config,
            kind: self.bottleneck.config,
            "decoder": self.decoder.config,
        }
        if self.likelihood.config["type"] in ("mse", "charbonnier"):
            config["reconstruction_loss"] = self.likelihood.config["type"]
        else:
            config["likelihood"] = self.likelihood.config
        config["loss_weights"] = self.loss_weights
        if self.corruption is not None:
            config["corruption"] = self.corruption.config
        if len(self.penalties):
            config["penalties"] = [penalty.config for penalty in self.penalties]
        if self.scaling is not None:
            config["scaling"] = self.scaling.config
        if self.density is not None:
            config["density"] = self.density.config
        return config

    def forward(
        self, inputs: Tensor, mask: Tensor | None = None, *, step: int | None = None
    ) -> Reconstruction:
        """Reconstruct a batch and measure it.

        Args:
            inputs: [B, ...], as the encoder and the scaling take them.
            mask: bool [B, T] of sequences, True where there is data.
            step: of training, for schedules; None for their end.
        """
        target = zero_padding(self.scaled(inputs), mask)
        seen = target
        if self.training and self.corruption is not None:
            seen = zero_padding(self.corruption(target), mask)
        penalties = [*self.penalties] if self.training else []
        twice = any(penalty.needs_input_gradient for penalty in penalties)
        if twice:
            if not seen.is_floating_point():
                raise ValueError(f"a Jacobian is of real values, not of {seen.dtype} symbols")
            seen = seen.detach().requires_grad_()
        # Torch's fused attention has no second derivative.
        with sdpa_kernel(SDPBackend.MATH) if twice else nullcontext():
            latents = self.encode(seen, mask)
        squeezed = self.squeeze(latents, step=step)
        output = self.decode(squeezed.values, target)
        reconstruction = self.likelihood(at_least_float32(output), at_least_float32(target), mask)
        losses = {"reconstruction": reconstruction, **squeezed.losses}
        if penalties:
            context = Context(
                seen,
                target,
                latents,
                squeezed.values,
                output,
                lambda values: self.decode(values, target),
                self.bottleneck,
                mask,
                step,
            )
            losses |= {penalty.name: penalty(context) for penalty in penalties}
        return Reconstruction(output, latents, squeezed.codes, losses, squeezed.metrics)

    def total_loss(self, losses: Mapping[str, Tensor], step: int | None = None) -> Tensor:
        """The weighted sum of the terms at a training step (None: at the schedules' end)."""
        weights = {name: at_step(self.loss_weights.get(name, 1.0), step) for name in losses}
        return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()

    def scaled(self, inputs: Tensor) -> Tensor:
        """Data as the encoder sees them."""
        return inputs if self.scaling is None else self.scaling(inputs)

    def encode(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Scaled inputs to latents [..., D]."""
        latents: Tensor = self.encoder(inputs) if mask is None else self.encoder(inputs, mask)
        return latents

    def squeeze(self, latents: Tensor, *, step: int | None = None) -> Squeezed:
        """Latents through the bottleneck."""
        if isinstance(self.bottleneck, Quantizer):
            result = self.bottleneck(latents)
            return Squeezed(result.quantized, result.codes, result.losses, result.metrics)
        squeezed: Squeezed = self.bottleneck(latents, step=step)
        return squeezed

    def decode(self, values: Tensor, target: Tensor | None = None) -> Tensor:
        """What the bottleneck let through to the decoder's output.

        ``target`` tells a sequence decoder what it is to say (teacher forcing) or how long.
        """
        if isinstance(self.decoder, SequenceDecoder):
            output: Tensor = self.decoder(values, target)
        else:
            output = self.decoder(values)
        return output


def build_autoencoder(config: Mapping[str, Any]) -> Autoencoder:
    """The autoencoder that a config describes, freshly initialised.

    Raises:
        ValueError, TypeError: a type or argument is unknown, missing or out of range.
    """
    for wanted in (
        ("encoder",),
        ("decoder",),
        ("quantizer", "bottleneck"),
        ("likelihood", "reconstruction_loss"),
        ("loss_weights",),
    ):
        if not any(key in config for key in wanted):
            raise ValueError(f"the config of an autoencoder lacks {' or '.join(map(repr, wanted))}")
    if "quantizer" in config:
        bottleneck: Bottleneck | Quantizer = build_quantizer(config["quantizer"])
    else:
        bottleneck = build("bottleneck", BOTTLENECKS, config["bottleneck"])
    corruption, scaling = config.get("corruption"), config.get("scaling")
    likelihood = config.get("likelihood") or {"type": config["reconstruction_loss"]}
    model = Autoencoder(
        build_encoder(config["encoder"]),
        bottleneck,
        build_decoder(config["decoder"]),
        corruption=corruption and build("corruption", CORRUPTIONS, corruption),
        likelihood=build("likelihood", LIKELIHOODS, likelihood),
        penalties=[build("penalty", PENALTIES, each) for each in config.get("penalties", ())],
        loss_weights=config["loss_weights"],
        scaling=scaling and build("scaling", SCALINGS, scaling),
    )
    if config.get("density") is not None:
        model.density = LatentDensity(**config["density"])
    return model


def _check_dims(encoder: Stack, bottleneck: Bottleneck | Quantizer, decoder: Stack) -> None:
    out_dim = bottleneck.dim if isinstance(bottleneck, Quantizer) else bottleneck.out_dim
    if (encoder.dim, out_dim) != (bottleneck.dim, decoder.dim):
        raise ValueError(
            f"dimensions do not fit: the encoder gives {encoder.dim}, the bottleneck takes "
            f"{bottleneck.dim} and gives {out_dim}, the decoder takes {decoder.dim}"
        )
