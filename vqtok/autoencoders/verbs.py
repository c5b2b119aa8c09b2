"""What can be done with a trained autoencoder, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vqtok.autoencoders.bottlenecks import GaussianBottleneck, sum_per_sample
from vqtok.autoencoders.density import LatentDensity
from vqtok.autoencoders.inputs import check_codes, check_data, check_latents
from vqtok.autoencoders.precision import at_least_float32
from vqtok.autoencoders.storage import fingerprint, load_model, read_config, save_model
from vqtok.errors import DataError, UsageError
from vqtok.nn.masks import zero_padding
from vqtok.nn.sequence import SequenceDecoder
from vqtok.quantizers import Quantizer

if TYPE_CHECKING:
    from vqtok.autoencoders.autoencoder import Autoencoder

_ROWS = 1024
"""Samples that are worked on at once: memory does not grow with the data."""

_CONFIG_TYPES: dict[str, type] = {
    "kind": str,
    "name": str,
    "fingerprint": str,
    "autoencoder": dict,
    "provenance": dict,
}


class Verbs(nn.Module):
    """Transform, reconstruct, score, sample, interpolate, save and load.

    All of them evaluate: no noise, no corruption, no gradient, in the model's own precision, so
    the same call gives the same result. ``inputs`` are data as they come (the model scales them
    itself): tensors on any device, results are on the model's; or numpy arrays, results are too.
    ``mask``, bool [B, T], says where sequences have data. Data of another shape, NaN and infinities
    are refused with a UsageError.

    Attributes:
        name: for people.
        provenance: how the weights came about, kept with them.
        threshold: scores below it are anomalies; None if it was not calibrated.
    """

    def __init__(self) -> None:
        super().__init__()
        self.name = "autoencoder"
        self.provenance: dict[str, Any] = {}
        self.threshold: float | None = None

    def transform(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Data [B, ...] to what passes the bottleneck: int64 codes [B, ..., Q] of a quantizer,
        else float32 values [B, ..., D'] (of a Gaussian bottleneck the posterior means)."""

        def one(part: Tensor, mask: Tensor | None) -> Tensor:
            squeezed = self._model.squeeze(self._latents(part, mask))
            return squeezed.values if squeezed.codes is None else squeezed.codes

        check_data(self._model, inputs, mask)
        return self._in_parts(one, inputs, mask)

    def inverse_transform(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What :meth:`transform` gave, back to data [B, ...].

        Args:
            values: codes or values.
            lengths: int64 [B] of sequences (default: as the decoder decides).
        """

        def one(part: Tensor, lengths: Tensor | None) -> Tensor:
            bottleneck = self._model.bottleneck
            if isinstance(bottleneck, Quantizer):
                part = bottleneck.embed(part).to(next(self.parameters()).dtype)
            return self._decoded(part, lengths)

        check_codes(self._model, values)
        return self._in_parts(one, values, lengths)

    def reconstruct(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Data [B, ...] to what the decoder makes of them, in the data's own units.

        Sequences are generated from their latents alone, as long as they were.
        """

        def one(part: Tensor, mask: Tensor | None) -> Tensor:
            values = self._model.squeeze(self._latents(part, mask)).values
            made = self._decoded(values, _lengths(self._model, part, mask))
            return made if mask is None else _as_long(made, part.shape[1])

        check_data(self._model, inputs, mask)
        return self._in_parts(one, inputs, mask)

    def score_samples(
        self, inputs: Tensor, mask: Tensor | None = None, *, per_feature: bool = False
    ) -> Tensor:
        """How well the model knows each sample: the higher, the more normal.

        The log-likelihood in nats of the data given their reconstruction, less the KL divergence
        of a Gaussian bottleneck: of a VAE the evidence lower bound, taken at the posterior mean.
        (For plain errors: less the sum of errors.)

        Args:
            inputs: data [B, ...].
            mask: of sequences; masked places count 0.
            per_feature: the share of each value (or time step and channel) instead of their sum,
                without the KL divergence.

        Returns:
            float32 [B], or the shape of the data.
        """

        def one(part: Tensor, mask: Tensor | None) -> Tensor:
            model = self._model
            target = zero_padding(model.scaled(part), mask)
            squeezed = model.squeeze(model.encode(target, mask))
            output = model.decode(squeezed.values, target)
            cost = model.likelihood.cost(at_least_float32(output), at_least_float32(target))
            if per_feature:
                return -cost if mask is None else -_masked(cost, mask)
            score = -sum_per_sample(cost, mask)
            return score if squeezed.kl is None else score - sum_per_sample(squeezed.kl)

        check_data(self._model, inputs, mask)
        return self._in_parts(one, inputs, mask)

    def sample(self, count: int, *, seed: int = 0, lengths: Tensor | None = None) -> Tensor:
        """New data: from the prior of a Gaussian bottleneck, else from where the latents of the
        training data lie.

        Args:
            count: how many.
            seed: of the draws.
            lengths: int64 [count] of sequences.

        Raises:
            ValueError: the latents' density is not known (see :meth:`fit_density`).
        """
        if count < 0:
            raise UsageError(f"count must be at least 0, not {count}")
        generator = torch.Generator().manual_seed(seed)
        bottleneck, density = self._model.bottleneck, self._model.density
        with self._evaluating():
            if density is None:
                raise ValueError(
                    "nothing to sample from: call fit_density with the training data first"
                )
            if isinstance(bottleneck, GaussianBottleneck):
                shape = (*density.shape[:-1], bottleneck.out_dim)
                values = torch.randn(count, *shape, generator=generator).to(self.device)
            else:
                values = self._model.squeeze(density.draw(count, generator)).values
        return self._in_parts(self._decoded, values, lengths)

    def interpolate(
        self, first: Tensor, second: Tensor, steps: int = 8, mask: Tensor | None = None
    ) -> Tensor:
        """Data on the straight line between the latents of two batches.

        Args:
            first: data [B, ...], where it starts.
            second: data [B, ...], where it ends.
            steps: places on the line, both ends included, at least 2.
            mask: of both, for sequences.

        Returns:
            [B, steps, ...]; the ends are the two reconstructions.
        """
        for each in (first, second):
            check_data(self._model, each, mask)
        if steps < 2 or first.shape != second.shape:
            raise ValueError(
                f"interpolation needs at least 2 steps between batches of one shape, not {steps} "
                f"between {list(first.shape)} and {list(second.shape)}"
            )

        def one(part: Tensor, mask: Tensor | None) -> Tensor:
            return self._latents(part, mask)

        if isinstance(first, np.ndarray):
            pair = (as_tensor(each) for each in (first, second))
            return cast("Tensor", self.interpolate(*pair, steps, mask).cpu().numpy())
        start, end = (self._in_parts(one, each, mask) for each in (first, second))
        places = torch.linspace(0, 1, steps, device=start.device)
        lines = torch.stack([start.lerp(end, place) for place in places], 1)
        lengths = _lengths(self._model, first, mask)
        if lengths is not None:
            lengths = lengths.repeat_interleave(steps)

        def other(part: Tensor, lengths: Tensor | None) -> Tensor:
            return self._decoded(self._model.squeeze(part).values, lengths)

        made = self._in_parts(other, lines.flatten(0, 1), lengths)
        return made.reshape(len(first), steps, *made.shape[1:])

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Latents as the encoder gives them, through the bottleneck, to data."""

        def one(part: Tensor, _second: Tensor | None) -> Tensor:
            return self._decoded(self._model.squeeze(part).values)

        check_latents(self._model, "latents", latents, self._model.bottleneck.dim)
        return self._in_parts(one, latents, None)

    def fit_density(self, inputs: Tensor, mask: Tensor | None = None) -> None:
        """Learn where the latents of the training data lie, for :meth:`sample`."""
        check_data(self._model, inputs, mask)
        latents = self._in_parts(self._latents, inputs, mask)
        self._model.density = LatentDensity.of(latents).to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.parameters()).device

    @property
    def fingerprint(self) -> str:
        """SHA-256 of configuration and weights."""
        return fingerprint(self._model.config, self)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into a folder, made if needed."""
        description = {
            "kind": "autoencoder",
            "modality": "array",
            "name": self.name,
            "fingerprint": self.fingerprint,
            "autoencoder": self._model.config,
            "threshold": self.threshold,
            "provenance": self.provenance,
        }
        save_model(Path(folder), self, description)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Autoencoder:
        """Load what :meth:`save_pretrained` wrote.

        Raises:
            DataError: the files are missing, damaged, not an autoencoder's, or of a newer vqtok.
        """
        from vqtok.autoencoders.autoencoder import build_autoencoder

        folder = Path(folder)
        config = read_config(folder, _CONFIG_TYPES)
        model = load_model(folder, lambda: build_autoencoder(config["autoencoder"]))
        model.name = config["name"]
        model.provenance = config["provenance"]
        model.threshold = config.get("threshold")
        if model.fingerprint != config["fingerprint"]:
            raise DataError(
                f"model {folder} is damaged: its weights have fingerprint "
                f"{model.fingerprint[:12]}, its config says {config['fingerprint'][:12]}"
            )
        return model.eval()

    @property
    def _model(self) -> Autoencoder:
        model: Autoencoder = self  # type: ignore[assignment]
        return model

    def _latents(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        return self._model.encode(self._model.scaled(inputs), mask)

    def _decoded(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        decoder = self._model.decoder
        mask = None
        if isinstance(decoder, SequenceDecoder):
            made = decoder.generate(values, lengths)
            data, mask = made.sequences, made.mask
        else:
            data = self._model.likelihood.point(at_least_float32(self._model.decode(values)))
        scaling = self._model.scaling
        return data if scaling is None else zero_padding(scaling.inverse(data), mask)

    def _in_parts(
        self,
        verb: Callable[[Tensor, Tensor | None], Tensor],
        inputs: Tensor,
        second: Tensor | None,
    ) -> Tensor:
        """A verb on a few samples (and their masks or lengths) at a time, evaluating."""
        if isinstance(inputs, np.ndarray):
            arrays = (None if each is None else as_tensor(each) for each in (inputs, second))
            made = self._in_parts(verb, *arrays).cpu().numpy()
            return cast("Tensor", made)
        if inputs.is_floating_point():
            inputs = inputs.to(next(self.parameters()).dtype)
        results = []
        with self._evaluating():
            for start in range(0, max(1, len(inputs)), _ROWS):
                part = inputs[start : start + _ROWS].to(self.device)
                other = None if second is None else second[start : start + _ROWS].to(self.device)
                results.append(verb(part, other))
        return results[0] if len(results) == 1 else _joined(results)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                yield
        finally:
            self.train(was_training)


def as_tensor(values: Tensor | npt.NDArray[Any]) -> Tensor:
    """A tensor, or a numpy array as one; read-only arrays are copied."""
    if isinstance(values, Tensor):
        return values
    return torch.from_numpy(values if values.flags.writeable else values.copy())


def _lengths(model: Autoencoder, inputs: Tensor, mask: Tensor | None) -> Tensor | None:
    """How long reconstructions of these inputs are to be."""
    if not isinstance(model.decoder, SequenceDecoder):
        return None
    if mask is not None:
        return mask.sum(1)
    return torch.full((len(inputs),), inputs.shape[1], device=inputs.device)


def _joined(results: list[Tensor]) -> Tensor:
    """Parts [b, ...] as one; generated sequences [b, T, ...] are padded with 0 to the longest."""
    if len({part.shape[1:] for part in results}) == 1:
        return torch.cat(results)
    longest = max(part.shape[1] for part in results)
    return torch.cat([_as_long(part, longest) for part in results])


def _as_long(made: Tensor, length: int) -> Tensor:
    """Sequences [B, t, ...] padded with 0 to [B, length, ...]."""
    padded = made.new_zeros(len(made), length, *made.shape[2:])
    padded[:, : made.shape[1]] = made
    return padded


def _masked(cost: Tensor, mask: Tensor) -> Tensor:
    shape = (*mask.shape, *(1 for _ in range(cost.ndim - mask.ndim)))
    return cost.masked_fill(~mask.view(shape), 0.0)
