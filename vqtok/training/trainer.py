"""The one training loop."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from vqtok.autoencoders import Autoencoder, build_autoencoder
from vqtok.errors import UsageError
from vqtok.files import remove_temporaries
from vqtok.nn import channels_last
from vqtok.tokenizer import CONFIG_NAME, Tokenizer
from vqtok.training.checkpoint import CHECKPOINT_NAME, read_checkpoint, restore, save_checkpoint
from vqtok.training.config import TrainConfig, learning_rate
from vqtok.training.data import TrainingData
from vqtok.training.guard import NotFiniteError, first_bad_gradient, first_bad_layer
from vqtok.training.interrupt import deferred_interrupt
from vqtok.training.metrics import append_line, as_json, forget_after, summary
from vqtok.training.photos import PhotoTask
from vqtok.training.players import Player, model_optimizer
from vqtok.training.provenance import provenance
from vqtok.training.ranks import average_gradients, this_rank, wait_for_all, world_size
from vqtok.training.task import Outcome, Task
from vqtok.training.warm_start import load_weights


class Trainer:
    """Trains an autoencoder; a run that stopped anywhere continues bit for bit.

    The output folder is that of the outcome (a tokenizer, or an autoencoder) from the first
    checkpoint on: ``config.json`` and ``model.safetensors`` hold the averaged weights, beside
    ``checkpoint.safetensors``, ``metrics.jsonl`` and perhaps ``preview.png``. "Bit for bit" means
    on the same kind of machine with as many threads, since sums over a batch are rounded in their
    order.

    Under torchrun (see :mod:`vqtok.training.ranks`) each rank takes its own batches, so a step
    covers ``batch_size`` samples per rank; rank 0 writes the files.

    Args:
        model_config: what to build (see ``Autoencoder.config``).
        data: training batches.
        out: the run's folder, in which a checkpoint is resumed; None keeps everything in memory.
        config: how to train.
        name: of the outcome.
        task: the kind of data, by default photos.
        validation: data that are only looked at; one fixed batch is scored at every checkpoint.
        init: a tokenizer or autoencoder to start from, of the same model or one with fewer residual
            codebooks (see :func:`vqtok.training.warm_start.load_weights`).
        device: where to train.

    Raises:
        UsageError: the data or the weights to start from don't fit the model.
    """

    def __init__(
        self,
        model_config: Mapping[str, Any],
        data: TrainingData,
        out: Path | None,
        config: TrainConfig,
        *,
        name: str,
        task: Task | None = None,
        validation: TrainingData | None = None,
        init: Tokenizer | Autoencoder | None = None,
        device: str = "cpu",
    ) -> None:
        torch.manual_seed(config.seed)
        self.task = task or PhotoTask()
        self.model = build_autoencoder(model_config)
        self.task.prepare(self.model)
        if init is not None:
            load_weights(self.model, init.autoencoder if isinstance(init, Tokenizer) else init)
        self.model.to(device)
        channels_last(self.model)
        self.task.check(self.model, data)
        self.config = config
        self.data = data
        self.validation_batch = (validation or data).batch(0)
        self.out = out
        self.name = name
        self.device = torch.device(device)
        self.average = {key: value.detach().clone() for key, value in self.model.named_parameters()}
        self.players = {"": Player(self.model, model_optimizer(self.model, config))}
        self.adversary = self.task.adversary
        if self.adversary is not None:
            self.adversary.to(device)
            self.players["adversary."] = Player(self.adversary, self.adversary.optimizer())
        self.run_description = self._description(model_config, init)
        self.log: list[dict[str, Any]] = []
        self.step = 0

    def fit(self) -> Outcome:
        """Train to the last step and return what the averaged weights make.

        Raises:
            UsageError: the folder's checkpoint belongs to a different run.
            NotFiniteError: a loss or gradient became NaN or infinite.
        """
        self._open()
        if self.step == self.config.steps:
            self._export()  # the run may have been killed after its last checkpoint
            return self.outcome()
        ranks, rank = world_size(), this_rank()
        if self.step == 0 and self.run_description["init"] is None:
            self.task.start(self.model, self.data, self.device)
        started, first = time.monotonic(), self.step
        batches = self.data.batches(self.step * ranks + rank, self.config.steps * ranks, ranks)
        bar = tqdm(
            batches,
            total=self.config.steps,
            initial=self.step,
            unit="step",
            disable=True if rank else None,
        )
        with deferred_interrupt() as interrupted:
            for batch in bar:
                record = self._train_step(batch)
                self.step += 1
                last = self.step == self.config.steps
                if self.step % self.config.log_every == 0 or last:
                    samples = (self.step - first) * self.data.batch_size * ranks
                    pace = samples / (time.monotonic() - started)
                    values = {key: as_json(value) for key, value in record.items()}
                    line = {"step": self.step, "samples_per_second": round(pace, 2), **values}
                    self._log(line)
                    bar.set_postfix_str(summary(line, self.task.unit))
                if self.step % self.config.save_every == 0 or last or interrupted():
                    self.save()
                if interrupted():
                    raise KeyboardInterrupt
        return self.outcome()

    def outcome(self) -> Outcome:
        """What the averaged weights make: the task's tokenizer or autoencoder."""
        model = build_autoencoder(self.run_description["model"])
        state = self.model.state_dict()
        state |= self.average
        model.load_state_dict(state)
        return self.task.outcome(
            model, name=self.name, training=self._provenance(), device=self.device
        )

    def save(self) -> None:
        """Write the checkpoint, then the outcome, the preview and the validation score."""
        if self.out is not None and this_rank() == 0:
            save_checkpoint(
                self.out,
                step=self.step,
                run=self.run_description,
                players=self.players,
                average=self.average,
            )
        self._export()

    def _export(self) -> None:
        if this_rank() == 0:
            outcome = self.outcome()
            if self.out is not None:
                outcome.save_pretrained(self.out)
            scores = self.task.validate(outcome, self.validation_batch, self.out)
            self._log({"step": self.step, **scores})
        wait_for_all()

    def _log(self, line: dict[str, Any]) -> None:
        if this_rank():
            return
        self.log.append(line)
        if self.out is not None:
            append_line(self.out, line)

    def _open(self) -> None:
        """Make the folder and go on with what is in it."""
        if self.out is None:
            return
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f"{self.out} is a file; --out must be a folder")
        if this_rank() == 0:
            self.out.mkdir(parents=True, exist_ok=True)
            remove_temporaries(self.out)
        wait_for_all()
        self._resume(self.out)
        wait_for_all()

    def _resume(self, out: Path) -> None:
        path = out / CHECKPOINT_NAME
        if not path.exists():
            if (out / CONFIG_NAME).exists():
                raise UsageError(f"{out} already holds a tokenizer; choose another --out")
            return
        step, run, tensors = read_checkpoint(out)
        changes = _differences(run, self.run_description)
        if changes:
            raise UsageError(
                f"{path} belongs to a run with other settings: {', '.join(changes)}. Give the "
                f"same ones to go on with it, or choose another --out"
            )
        restore(path, tensors, self.players, self.average)
        self.step = step
        if this_rank() == 0:
            forget_after(out, step)

    def _train_step(self, batch: Any) -> dict[str, Tensor | float]:
        config, step = self.config, self.step
        seed = config.seed * 1_000_003 + step + this_rank() * 1_000_000_007
        if self.device.type == "cpu":
            # torch.manual_seed would format a stack trace each time, for a CUDA that is not there.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
        rate = learning_rate(config, step)
        for player in self.players.values():
            player.set_learning_rate(rate)
        inputs = self.task.inputs(batch, self.device)
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.autocast):
            result = self.model(inputs.values, inputs.mask, step=step)
            losses = dict(result.losses)
            if self.adversary is not None:
                losses |= self.adversary.fool(result.output, inputs.values, step)
        total = self.model.total_loss(losses, step)
        if not bool(total.isfinite()):
            self._report_not_finite(first_bad_layer(self.model, inputs.values, inputs.mask))
        norm = self._move(self.players[""], total)
        self._update_average()
        record = {"loss": total.detach()}
        if self.adversary is not None:
            output = result.output.detach()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=config.autocast):
                own = self.adversary.learn(output, inputs.values, step)
            self._move(self.players["adversary."], own)
            record["adversary"] = own.detach()
        return {
            **record,
            **{f"loss/{key}": value.detach() for key, value in losses.items()},
            **result.metrics,
            "gradient_norm": norm,
            "learning_rate": rate,
        }

    def _move(self, player: Player, loss: Tensor) -> Tensor:
        """One optimizer step of a player; returns the norm that its gradients had."""
        player.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(player.module.parameters())
        norm = torch.nn.utils.clip_grad_norm_(player.module.parameters(), self.config.clip)
        if not bool(norm.isfinite()):
            self._report_not_finite(first_bad_gradient(player.module) or "the gradients' norm")
        player.optimizer.step()
        return norm.detach()

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.average_decay, (1 + self.step) / (10 + self.step))
        parameters = [parameter.detach() for parameter in self.model.parameters()]
        torch._foreach_lerp_(list(self.average.values()), parameters, 1 - decay)

    def _report_not_finite(self, where: str) -> None:
        advice = "start again with a lower --learning-rate"
        if self.config.autocast:
            advice += " or with --no-autocast"
        if self.out is not None and (self.out / CHECKPOINT_NAME).exists():
            advice = (
                f"the last checkpoint is intact: start a new run from it with --init {self.out}, "
                f"another --out and a lower --learning-rate"
            )
        raise NotFiniteError(f"step {self.step}: {where} is not finite; {advice}")

    def _description(
        self, model_config: Mapping[str, Any], init: Tokenizer | Autoencoder | None
    ) -> dict[str, Any]:
        description = {
            "model": json.loads(json.dumps(model_config)),
            "train": asdict(self.config),
            "name": self.name,
            "sources": len(self.data),
            "data": self.data.digest,
            "init": init.fingerprint if init is not None else None,
        }
        # Left out where they are not used, so that older runs go on.
        if self.adversary is not None:
            description["adversary"] = json.loads(json.dumps(self.adversary.config))
        if world_size() > 1:
            description["ranks"] = world_size()
        return description

    def _provenance(self) -> dict[str, Any]:
        return {
            **self.run_description,
            "step": self.step,
            **provenance(),
        }


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
