"""The one training loop."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from vqtok._version import __version__
from vqtok.autoencoders import build_autoencoder
from vqtok.errors import UsageError
from vqtok.files import remove_temporaries
from vqtok.nn import channels_last
from vqtok.tokenizer import CONFIG_NAME, Tokenizer, to_unit_range
from vqtok.training.checkpoint import CHECKPOINT_NAME, read_checkpoint, restore, save_checkpoint
from vqtok.training.config import TrainConfig, learning_rate
from vqtok.training.crops import PhotoCrops
from vqtok.training.guard import NotFiniteError, first_bad_gradient, first_bad_layer
from vqtok.training.interrupt import deferred_interrupt
from vqtok.training.metrics import append_line, as_json, forget_after, summary
from vqtok.training.preview import save_preview


class Trainer:
    """Trains an autoencoder on crops; a run that stopped anywhere continues bit for bit.

    The output folder is a tokenizer folder from the first checkpoint on: ``config.json`` and
    ``model.safetensors`` hold the averaged weights, beside ``checkpoint.safetensors``,
    ``metrics.jsonl`` and ``preview.png``. "Bit for bit" means on the same kind of machine with as
    many threads, since sums over a batch are rounded in their order.

    Args:
        model_config: what to build (see ``Autoencoder.config``).
        crops: training batches.
        out: the run's folder; a checkpoint in it is resumed.
        config: how to train.
        name: of the tokenizer.
        validation: crops that are only looked at; one fixed batch of them is scored at every
            checkpoint.
        init: a tokenizer of the same config, to start from its weights.
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
        init: Tokenizer | None = None,
        device: str = "cpu",
    ) -> None:
        torch.manual_seed(config.seed)
        self.model = build_autoencoder(model_config)
        if init is not None:
            self.model.load_state_dict(init.autoencoder.state_dict())
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
            "name": name,
            "sources": len(crops.sources),
            "data": crops.digest,
            "init": init.fingerprint if init is not None else None,
        }
        self.step = 0

    def fit(self) -> Tokenizer:
        """Train to the last step and return the tokenizer of the averaged weights.

        Raises:
            UsageError: the folder's checkpoint belongs to a different run.
            NotFiniteError: a loss or gradient became NaN or infinite.
        """
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f"{self.out} is a file; --out must be a folder")
        self.out.mkdir(parents=True, exist_ok=True)
        self._resume()
        if self.step == self.config.steps:
            self._export()  # the run may have been killed after its last checkpoint
            return self.tokenizer()
        started, first = time.monotonic(), self.step
        batches = self.crops.batches(self.step, self.config.steps)
        bar = tqdm(batches, total=self.config.steps, initial=self.step, unit="step", disable=None)
        with deferred_interrupt() as interrupted:
            for batch in bar:
                record = self._train_step(batch)
                self.step += 1
                last = self.step == self.config.steps
                if self.step % self.config.log_every == 0 or last:
                    pace = (self.step - first) * len(batch) / (time.monotonic() - started)
                    values = {key: as_json(value) for key, value in record.items()}
                    line = {"step": self.step, "samples_per_second": round(pace, 2), **values}
                    append_line(self.out, line)
                    bar.set_postfix_str(summary(line))
                if self.step % self.config.save_every == 0 or last or interrupted():
                    self.save()
                if interrupted():
                    raise KeyboardInterrupt
        return self.tokenizer()

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the averaged weights, rounded to float16 so that it is small."""
        model = build_autoencoder(self.run_description["model"])
        state = self.model.state_dict()
        state |= self.average
        model.load_state_dict({key: _rounded(value) for key, value in state.items()})
        return Tokenizer(model, name=self.name, training=self._provenance())

    def save(self) -> None:
        """Write the checkpoint, then the tokenizer, the preview and the validation score."""
        save_checkpoint(
            self.out,
            step=self.step,
            run=self.run_description,
            model=self.model,
            average=self.average,
            optimizer=self.optimizer,
        )
        self._export()

    def _export(self) -> None:
        tokenizer = self.tokenizer()
        tokenizer.save_pretrained(self.out)
        psnr = save_preview(tokenizer.to(self.device), self.validation_batch, self.out)
        append_line(self.out, {"step": self.step, "validation_psnr": psnr})

    def _resume(self) -> None:
        remove_temporaries(self.out)
        path = self.out / CHECKPOINT_NAME
        if not path.exists():
            if (self.out / CONFIG_NAME).exists():
                raise UsageError(f"{self.out} already holds a tokenizer; choose another --out")
            return
        step, run, tensors = read_checkpoint(self.out)
        changes = _differences(run, self.run_description)
        if changes:
            raise UsageError(
                f"{path} belongs to a run with other settings: {', '.join(changes)}. Give the "
                f"same ones to go on with it, or choose another --out"
            )
        restore(path, tensors, self.model, self.average, self.optimizer)
        self.step = step
        forget_after(self.out, step)

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
        advice = "start again with a lower --learning-rate or with --no-autocast"
        if (self.out / CHECKPOINT_NAME).exists():
            advice = (
                f"the last checkpoint is intact: start a new run from it with --init {self.out}, "
                f"another --out and a lower --learning-rate"
            )
        raise NotFiniteError(f"step {self.step}: {where} is not finite; {advice}")

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


def _rounded(value: Tensor) -> Tensor:
    """To float16's precision, where its range allows."""
    if not value.is_floating_point():
        return value
    narrow = value.half().float()
    return narrow if bool(narrow.isfinite().all()) else value


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What a run's description says differently, as "steps 4 instead of 2"."""
    changes = []
    for key in old.keys() | new.keys():
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict) and key == "train":
            changes += _differences(before, now)
        elif before != now:
            short = key in ("model", "data")
            changes.append(f"another {key}" if short else f"{key} {now!r} instead of {before!r}")
    return sorted(changes)


def _machine() -> str:
    model = platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if "model name" in line]
        model = names[0] if names else model
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} cores"
