"""Training a float twin, rounding it, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqtok.errors import UsageError
from vqtok.tokens.prior import Prior
from vqtok.training.prior.grids import Grids
from vqtok.training.prior.plan import DEFAULT_BYTES, PriorPlan, plan_prior
from vqtok.training.prior.restore import plan_of, restore
from vqtok.training.prior.twin import FloatTwin
from vqtok.training.provenance import provenance

if TYPE_CHECKING:
    from vqtok.tokenizer import Tokenizer

_ROUNDED_SHARE = 0.15  # of the steps, the last ones
_ROUNDED_RATE = 0.1  # of the peak learning rate, where they begin
_HELD_OUT = 0.05  # of the samples, where there are none for validation
_WARMUP = 200
_JUDGED = 50_000  # positions of validation that are enough
_CHUNK = 4096


@dataclass(frozen=True)
class PriorConfig:
    """How to train a prior.

    Attributes:
        steps: optimizer steps; the last 15% are with rounded numbers.
        batch_size: positions in a step, drawn from all samples.
        learning_rate: the peak.
        seed: of the start, of the batches, and of which samples are held out.
        max_bytes: of the file.
        autocast: compute in bfloat16.
    """

    steps: int = 6000
    batch_size: int = 2048
    learning_rate: float = 3e-3
    seed: int = 0
    max_bytes: int = DEFAULT_BYTES
    autocast: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "max_bytes"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UsageError(f"learning_rate must be positive, not {self.learning_rate}")


def train_prior(
    tokenizer: Tokenizer,
    samples: Sequence[NDArray[np.integer]],
    config: PriorConfig | None = None,
    validation: Sequence[NDArray[np.integer]] | None = None,
    progress: Callable[[int, float], object] | None = None,
    start: Prior | None = None,
) -> Prior:
    """Train the prior of a tokenizer on codes that it made.

    Args:
        tokenizer: whose codes they are.
        samples: integer [A, B, Q] each.
        config: how.
        validation: samples to judge by. Default: a twentieth of ``samples``, which is not trained
            on then.
        progress: called after every step with its number from 1 and its bits per code.
        start: a prior of these codebooks to go on from; it has the form of that one then, and
            ``max_bytes`` says nothing. A third of the usual learning rate suits.

    Returns:
        The integer prior. ``prior.training`` says how it came about; its ``bits_per_code`` holds
        lists by codebook, of the validation samples: ``fixed`` width, ``order0`` (the training
        codes' frequencies, one added to each), ``float`` (the twin before rounding) and
        ``integer``.

    Raises:
        UsageError: too few samples, no prior of that size fits these codebooks, or ``start`` is of
            others.
    """
    config = config or PriorConfig()
    sizes = tokenizer.codebook_sizes
    plan = _plan(tokenizer, config, start)
    train, held = (samples, validation) if validation else _split(samples, config.seed)
    held = _enough(held)
    torch.manual_seed(config.seed)
    twin = FloatTwin(plan, codebook_vectors(tokenizer))
    trained, judged = Grids(train, sizes), Grids(held, sizes)
    if not len(trained) or not len(judged):
        raise UsageError("there are no codes to learn from, or none to judge by")
    if start is not None:
        restore(twin, start)
    else:
        for q, network in enumerate(twin.networks):
            network.start_from(trained.counts(q, sizes[q]))
    float_bits: list[float] = []

    def rounding() -> None:
        float_bits.extend(mean_bits(twin, judged))
        twin.round()

    fit_twin(twin, trained, config, rounding, progress)
    bits: dict[str, Any] = {
        "fixed": [max(1, (size - 1).bit_length()) for size in sizes],
        "order0": _order0(trained, judged, plan),
        "float": float_bits,
    }
    facts: dict[str, Any] = {
        "samples": trained.samples,
        "positions": len(trained),
        "validation_samples": judged.samples,
        **asdict(config),
        **({} if start is None else {"start": start.digest}),
        "bits_per_code": bits,
        **provenance(),
    }
    bits["integer"] = prior_bits(_integer_prior(twin, tokenizer, {}), held)
    bits.update({key: [round(float(b), 4) for b in value] for key, value in bits.items()})
    return _integer_prior(twin, tokenizer, facts)


def _plan(tokenizer: Tokenizer, config: PriorConfig, start: Prior | None) -> PriorPlan:
    sizes, modality = tokenizer.codebook_sizes, tokenizer.modality
    if start is None:
        return plan_prior(sizes, modality, config.max_bytes)
    if (start.codebook_sizes, start.modality) != (sizes, modality):
        raise UsageError(f"the prior to start from is of other codebooks: {start.codebook_sizes}")
    return plan_of(start)


def _integer_prior(twin: FloatTwin, tokenizer: Tokenizer, facts: dict[str, Any]) -> Prior:
    return Prior(
        twin.tensors(),
        codebook_sizes=tokenizer.codebook_sizes,
        modality=tokenizer.modality,
        tokenizer=tokenizer.fingerprint,
        training=facts,
    )


def fit_twin(
    twin: FloatTwin,
    grids: Grids,
    config: PriorConfig,
    rounding: Callable[[], None],
    progress: Callable[[int, float], object] | None = None,
) -> None:
    """Train a twin in place: first in floats, then, after ``rounding()``, with rounded numbers."""
    generator = torch.Generator().manual_seed(config.seed)
    optimizer = torch.optim.AdamW(
        twin.parameters(),
        lr=config.learning_rate,
        weight_decay=0.0,
        betas=(0.9, 0.98),
        fused=True,
    )
    first_rounded = config.steps - max(1, round(config.steps * _ROUNDED_SHARE))
    for step in range(config.steps):
        if step == first_rounded:
            rounding()
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, first_rounded, config)
        index = torch.randint(len(grids), (config.batch_size,), generator=generator)
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for q in range(len(twin.networks)):
            with torch.autocast("cpu", torch.bfloat16, enabled=config.autocast):
                loss = twin.bits(grids, index, q).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        optimizer.step()
        twin.clip()
        if progress is not None:
            progress(step + 1, total / len(twin.networks))


def _rate(step: int, first_rounded: int, config: PriorConfig) -> float:
    """Warm-up and half a cosine in floats, then a straight line down to zero."""
    if step >= first_rounded:
        left = (config.steps - step) / (config.steps - first_rounded)
        return config.learning_rate * _ROUNDED_RATE * left
    warm = min(1.0, (step + 1) / min(_WARMUP, first_rounded))
    cosine = 0.5 * (1 + math.cos(math.pi * step / first_rounded))
    return config.learning_rate * warm * (0.02 + 0.98 * cosine)


@torch.no_grad()
def mean_bits(twin: FloatTwin, grids: Grids) -> list[float]:
    """Bits per code of each codebook."""
    count = len(grids)
    totals = [0.0] * len(twin.networks)
    for index in torch.arange(count).split(_CHUNK):  # type: ignore[no-untyped-call]
        for q in range(len(totals)):
            totals[q] += float(twin.bits(grids, index, q).double().sum())
    return [total / max(1, count) for total in totals]


def prior_bits(prior: Prior, samples: Sequence[NDArray[np.integer]]) -> list[float]:
    """Bits per code of each codebook under the integer model."""
    total = sum(prior.costs(codes).sum((0, 1)) for codes in samples)
    count = sum(codes.shape[0] * codes.shape[1] for codes in samples)
    return [float(bits) for bits in np.asarray(total) / max(1, count)]


def _enough(samples: Sequence[NDArray[np.integer]]) -> list[NDArray[np.integer]]:
    """The first samples, up to the one that completes _JUDGED positions; no empty ones."""
    chosen, count = [], 0
    for codes in samples:
        if count < _JUDGED and codes.size:
            chosen.append(codes)
            count += codes.shape[0] * codes.shape[1]
    return chosen


def codebook_vectors(tokenizer: Tokenizer) -> list[Tensor]:
    """What each codebook's codes mean to the decoder: float32 [K, D], the others' codes at 0."""
    quantizer = tokenizer.autoencoder.quantizer
    found = []
    for c, size in enumerate(tokenizer.codebook_sizes):
        codes = torch.zeros(size, c + 1, dtype=torch.int64, device=tokenizer.device)
        codes[:, c] = torch.arange(size)
        found.append(quantizer.embed(codes).float().cpu())
    return found


def _order0(trained: Grids, judged: Grids, plan: PriorPlan) -> list[float]:
    found = []
    for q, size in enumerate(plan.codebook_sizes):
        counts = trained.counts(q, size).double() + 1
        codes = judged.codes(torch.arange(len(judged)), q)
        found.append(float(-(counts / counts.sum()).log2()[codes].mean()))
    return found


def _split(
    samples: Sequence[NDArray[np.integer]], seed: int
) -> tuple[list[NDArray[np.integer]], list[NDArray[np.integer]]]:
    """Samples to train on and samples to judge by, at least one of each."""
    if len(samples) < 2:
        raise UsageError(f"a prior needs at least two samples to learn from, not {len(samples)}")
    order = np.random.default_rng(seed).permutation(len(samples))
    held = max(1, round(len(samples) * _HELD_OUT))
    return [samples[i] for i in order[held:]], [samples[i] for i in order[:held]]
