"""The one training loop."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from vqtok._version import __version__
from vqtok.autoencoders import build_autoencoder
from vqtok.errors import UsageError
from vqtok.nn import channels_last
from vqtok.tokenizer import Tokenizer, to_unit_range
from vqtok.training.checkpoint import CHECKPOINT_NAME, read_checkpoint, restore, save_checkpoint
from vqtok.training.crops import PhotoCrops
from vqtok.training.guard import NotFiniteError, first_bad_gradient, first_bad_layer
from vqtok.training.preview import save_preview

METRICS_NAME = "metrics.jsonl"


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        steps: optimizer steps of the whole run; the learning rate reaches zero with the last.
        batch_size: crops in a step.
        crop: their side in pixels.
        learning_rate: the peak of the schedule: linear warm-up, then half a cosine.
        warmup: steps of the warm-up.
        weight_decay: of AdamW.
        clip: largest gradient norm.
        average_decay: of the running mean of the weights, which is what gets saved.
        autocast: compute the network in bfloat16 (weights and losses stay float32).
        seed: of initialisation, crops and everything random in the model.
        log_every, save_every: steps between metrics, and between checkpoints with a preview.
    """

    steps: int
    batch_size: int = 16
    crop: int = 128
    learning_rate: float = 1e-3
    warmup: int = 200
    weight_decay: float = 1e-4
    clip: float = 1.0
    average_decay: float = 0.999
    autocast: bool = True
    seed: int = 0
    log_every: int = 50
    save_every: int = 1000


class Trainer:
    """Trains an autoencoder on crops; a run that stopped anywhere continues bit for bit.

    The output folder is a tokenizer folder from the first checkpoint on: ``config.json`` and
    ``model.safetensors`` hold the averaged weights, beside ``checkpoint.safetensors``,
    ``metrics.jsonl`` and ``preview.png``.

    Args:
        model_config: what to build (see ``Autoencoder.config``).
        crops: training batches.
        out: the run's folder; a checkpoint in it is resumed.
        config: how to train.
        name: of the tokenizer.
        validation: crops that are only looked at; one fixed batch of them is scored at every
            checkpoint.
        init: weights to start from, as from ``Tokenizer.autoencoder.state_dict()``.
        device: where to train.

    Raises:
        UsageError: the crops don't fit the model.
    """

    def __init__(
        self,
        model_config: Mapping[str, Any],
        crops: PhotoCrops,
        out: Path,
        config: TrainConfig,
        *,
        name: str,
        validation: PhotoCrops | None = None,
        init: Mapping[str, Tensor] | None = None,
        device: str = "cpu",
    ) -> None:
        torch.manual_seed(config.seed)
        self.model = build_autoencoder(model_config)
        if init is not None:
            self.model.load_state_dict(init)
        self.model.to(device)
        channels_last(self.model)
        downsample = self.model.encoder.downsample
        if crops.size % downsample:
            raise UsageError(f"crops must be a multiple of {downsample} pixels, not {crops.size}")
        self.config = config
        self.crops = crops
        self.validation_batch = (validation or crops).batch(0)
        self.out = out
        self.name = name
        self.device = torch.device(device)
        self.average = {key: value.detach().clone() for key, value in self.model.named_parameters()}
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True
        )
        self.run_description = {
            "model": json.loads(json.dumps(model_config)),
            "train": asdict(config),
            "sources": len(crops.sources),
        }
        self.step = 0

    def fit(self) -> Tokenizer:
        """Train to the last step and return the tokenizer of the averaged weights.

        Raises:
            UsageError: the folder's checkpoint belongs to a different run.
            NotFiniteError: a loss or gradient became NaN or infinite.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        self._resume()
        started, first = time.monotonic(), self.step
        batches = self.crops.batches(self.step, self.config.steps)
        bar = tqdm(batches, total=self.config.steps, initial=self.step, unit="step", disable=None)
        with open(self.out / METRICS_NAME, "a", encoding="utf-8") as log:
            for batch in bar:
                record = self._train_step(batch)
                self.step += 1
                last = self.step == self.config.steps
                if self.step % self.config.log_every == 0 or last:
                    pace = (self.step - first) / (time.monotonic() - started)
                    values = {key: _as_json(value) for key, value in record.items()}
                    line = {"step": self.step, "samples_per_second": pace * len(batch), **values}
                    log.write(json.dumps(line) + "\n")
                    log.flush()
                    bar.set_postfix_str(_summary(line))
                if self.step % self.config.save_every == 0 or last:
                    self.save(log_to=log)
        return self.tokenizer()

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the averaged weights, rounded to float16 so that it is small."""
        model = build_autoencoder(self.run_description["model"])
        state = self.model.state_dict()
        state |= self.average
        model.load_state_dict({key: _rounded(value) for key, value in state.items()})
        return Tokenizer(model, name=self.name, training=self._provenance())

    def save(self, log_to: Any = None) -> None:
        """Write checkpoint, tokenizer and preview, and log the validation score."""
        save_checkpoint(
            self.out,
            step=self.step,
            run=self.run_description,
            model=self.model,
            average=self.average,
            optimizer=self.optimizer,
        )
        tokenizer = self.tokenizer()
        tokenizer.save_pretrained(self.out)
        psnr = save_preview(tokenizer.to(self.device), self.validation_batch, self.out)
        if log_to is not None:
            log_to.write(json.dumps({"step": self.step, "validation_psnr": psnr}) + "\n")
            log_to.flush()

    def _resume(self) -> None:
        if not (self.out / CHECKPOINT_NAME).exists():
            if self.out.exists() and (self.out / "config.json").exists():
                raise UsageError(f"{self.out} already holds a tokenizer; choose another --out")
            return
        step, run, tensors = read_checkpoint(self.out)
        if run != self.run_description:
            different = [key for key in run if run.get(key) != self.run_description.get(key)]
            raise UsageError(
                f"{self.out / CHECKPOINT_NAME} belongs to a run with other settings "
                f"({', '.join(different)}); give the same ones to resume it, or another --out"
            )
        restore(tensors, self.model, self.average, self.optimizer)
        self.step = step
        _keep_lines_up_to(self.out / METRICS_NAME, step)

    def _train_step(self, batch: Tensor) -> dict[str, Tensor | float]:
        config = self.config
        torch.manual_seed(config.seed * 1_000_003 + self.step)
        rate = learning_rate(config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        inputs = to_unit_range(batch.to(self.device)).contiguous(memory_format=torch.channels_last)
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.autocast):
            result = self.model(inputs)
        total = self.model.total_loss(result.losses)
        if not bool(total.isfinite()):
            self._report_not_finite(first_bad_layer(self.model, inputs))
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        if not bool(norm.isfinite()):
            self._report_not_finite(first_bad_gradient(self.model) or "the gradients' norm")
        self.optimizer.step()
        self._update_average()
        return {
            "loss": total.detach(),
            **{f"loss/{key}": value.detach() for key, value in result.losses.items()},
            **result.metrics,
            "gradient_norm": norm.detach(),
            "learning_rate": rate,
        }

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.average_decay, (1 + self.step) / (10 + self.step))
        parameters = [parameter.detach() for parameter in self.model.parameters()]
        torch._foreach_lerp_(list(self.average.values()), parameters, 1 - decay)

    def _report_not_finite(self, where: str) -> None:
        raise NotFiniteError(
            f"training stopped at step {self.step}: {where} is not finite. The last checkpoint "
            f"in {self.out} is intact; restart with a lower --learning-rate or without autocast"
        )

    def _provenance(self) -> dict[str, Any]:
        return {
            **self.run_description,
            "step": self.step,
            "vqtok": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": _machine(),
            "threads": torch.get_num_threads(),
        }


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up to the peak, then half a cosine to zero at the last step."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def _rounded(value: Tensor) -> Tensor:
    """To float16's precision, where its range allows."""
    if not value.is_floating_point():
        return value
    narrow = value.half().float()
    return narrow if bool(narrow.isfinite().all()) else value


def _as_json(value: Tensor | float) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    numbers = [float(f"{number:.6g}") for number in value.flatten().tolist()]
    return numbers if value.ndim else numbers[0]


def _summary(line: Mapping[str, Any]) -> str:
    perplexity = " ".join(f"{value:.0f}" for value in line.get("perplexity", []))
    return (
        f"loss {line['loss']:.4g}, {line['samples_per_second']:.0f} crops/s, "
        f"perplexity {perplexity}"
    )


def _keep_lines_up_to(path: Path, step: int) -> None:
    """Forget the metrics of steps that will be run again."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if _line_step(line) <= step]
    path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _line_step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _machine() -> str:
    model = platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if "model name" in line]
        model = names[0] if names else model
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} cores"
