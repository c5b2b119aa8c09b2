"""Vector quantization with one codebook (van den Oord et al., 2017, arXiv:1711.00937)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtok import ops
from vqtok.quantizers import distributed
from vqtok.quantizers.base import (
    Quantized,
    as_rows,
    check_latents,
    masked_mean_square,
    new_switch,
)
from vqtok.quantizers.codebook import CodebookQuantizer
from vqtok.quantizers.gradients import GRADIENTS
from vqtok.quantizers.kmeans import code_totals, kmeans
from vqtok.quantizers.penalties import PENALTIES
from vqtok.quantizers.usage import DEAD_BELOW, is_dead, usage_of_codes, usage_of_counts

LEARNING = ("ema", "gradient")


class VectorQuantizer(CodebookQuantizer):
    """Each latent becomes the nearest row of a codebook.

    Args:
        codebook_size: number of embeddings K.
        dim: their dimension D.
        learning: ``"ema"`` moves embeddings to the running mean of their latents (van den Oord
            et al., 2017, appendix A.1); ``"gradient"`` makes them a parameter that the
            ``codebook`` loss pulls.
        decay: of the running means, and of the usage that decides about revival.
        cosine: latents and embeddings live on the unit sphere (Yu et al., 2021,
            arXiv:2110.04627); the quantized output has norm 1.
        gradient: ``"straight_through"`` or ``"rotation"``.
        kmeans_iterations: Lloyd steps on the first training batch; 0 starts from its random
            rows.
        revive_below: an embedding whose running share of positions falls below this fraction
            of the mean share 1/K restarts at a random latent of the batch, with its statistics;
            0 turns revival off. Relative, so that it doesn't depend on the batch size.
        penalties: further losses in training, names in :data:`PENALTIES`: ``"orthogonal"``
            (gradient learning only), ``"diversity"``.

    If the first training batch is masked altogether, there is nothing for k-means, and the
    codebook starts with random latents of the first batch that holds any (given revival).

    Losses: ``commitment``, the mean squared distance of latents to their (constant) embeddings;
    with gradient learning also ``codebook``, the same with the constants exchanged; penalties.
    Metric ``dead``: of the running counts that decide about revival, the ones of its state; so
    with ``decay`` and, unless revival is off, ``revive_below`` of a fair share.
    """

    def __init__(
        self,
        codebook_size: int,
        dim: int,
        *,
        learning: str = "ema",
        decay: float = 0.99,
        cosine: bool = False,
        gradient: str = "straight_through",
        kmeans_iterations: int = 10,
        revive_below: float = 0.1,
        penalties: Sequence[str] = (),
    ) -> None:
        super().__init__(codebook_size, dim)
        if learning not in LEARNING or gradient not in GRADIENTS:
            raise ValueError(
                f"learning must be one of {LEARNING} and gradient one of {tuple(GRADIENTS)}, "
                f"not {learning!r} and {gradient!r}"
            )
        allowed = [name for name in PENALTIES if learning == "gradient" or name != "orthogonal"]
        if any(name not in allowed for name in penalties):
            raise ValueError(
                f"with {learning} learning, penalties must be of {allowed}, not {list(penalties)}"
            )
        self.config: dict[str, Any] = {
            "type": "vector",
            "codebook_size": codebook_size,
            "dim": dim,
            "learning": learning,
            "decay": decay,
            "cosine": cosine,
            "gradient": gradient,
            "kmeans_iterations": kmeans_iterations,
            "revive_below": revive_below,
        }
        if penalties:  # left out otherwise, so that older configs keep their fingerprint
            self.config["penalties"] = list(penalties)
        self.learning = learning
        self.decay = decay
        self.cosine = cosine
        self.pass_gradient = GRADIENTS[gradient]
        self.kmeans_iterations = kmeans_iterations
        self.revive_below = revive_below
        self.penalties = tuple(penalties)
        embeddings = torch.randn(codebook_size, dim)
        if cosine:
            embeddings = F.normalize(embeddings, dim=-1)
        if learning == "gradient":
            self.embeddings: Tensor = nn.Parameter(embeddings)
        else:
            self.register_buffer("embeddings", embeddings)
            self.switch = new_switch()
        self.register_buffer("counts", torch.ones(codebook_size))
        self.register_buffer("initialized", torch.tensor(False))
        self.counts: Tensor
        self.initialized: Tensor
        # The host's copy of `initialized`: asking the tensor would wait for the device each step.
        self._is_initialized = False
        self.register_load_state_dict_post_hook(_refresh_initialized)  # type: ignore[no-untyped-call]

    @property
    def learns(self) -> bool:
        """Whether a forward pass may change state."""
        switch = self.embeddings if self.learning == "gradient" else self.switch
        return self.training and switch.requires_grad

    @property
    def is_plain(self) -> bool:
        """Whether quantizing is now the lookup of the nearest row of a constant, and no more."""
        return not self.training and not self.cosine and self.learning == "ema"

    def _quantize_rows(self, rows: Tensor, valid: Tensor | None) -> Quantized:
        given, known = rows.detach(), valid
        if self.cosine:
            rows = F.normalize(rows, dim=-1)
        points = rows.detach()
        if self.learns:
            known = _moderate(given, valid)
            if not self._is_initialized:
                self._initialize(points, known)
        table = self.table()
        chosen, codes, quantized = self._look_up(given, rows, table)
        losses = self._losses(rows, chosen, table, valid)
        if self.learns:
            metrics = self._update(points, codes, known)
        else:
            metrics = self.metrics(codes[:, None], known)
        return Quantized(quantized, codes, losses, metrics)

    def _look_up(self, given: Tensor, rows: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The chosen rows of the table [N, D], with its gradient; the codes [N]; the chosen rows
        with the gradient of the latents, which are ``given`` and, if cosine, normalised ``rows``.
        """
        # In training a NaN shows in the loss; asking here would wait for the device.
        check = not self.training
        if self.cosine:
            codes = ops.nearest_cosine(given, table.detach(), check=check)
            chosen = F.embedding(codes, table)
        else:
            chosen, found = ops.quantize(given, [table], check=check)
            codes = found[:, 0]
        return chosen, codes, self.pass_gradient(rows, chosen.detach())

    def metrics(self, codes: Tensor, valid: Tensor | None) -> dict[str, Tensor]:
        size, column = self.codebook_size, codes[:, 0]
        batch = usage_of_codes(column, size, valid, all_ranks=self.training)
        return {**batch, "dead": self._dead().float().mean()[None]}

    def table(self) -> Tensor:
        """The embeddings [K, D], on the unit sphere if cosine."""
        if self.learning == "ema":
            return self.embeddings
        # A copy: revival writes into the parameter before the backward pass needs its values.
        table = self.embeddings.clone()
        return F.normalize(table, dim=-1) if self.cosine else table

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.pop(prefix + "switch", None)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        super()._load_from_state_dict(
            *(state_dict, prefix, local_metadata, strict),
            *(missing_keys, unexpected_keys, error_msgs),
        )
        if prefix + "switch" in missing_keys:
            missing_keys.remove(prefix + "switch")

    def _losses(
        self, rows: Tensor, chosen: Tensor, table: Tensor, valid: Tensor | None
    ) -> dict[str, Tensor]:
        losses = {"commitment": masked_mean_square(rows, chosen.detach(), valid)}
        if self.learning == "gradient":
            losses["codebook"] = masked_mean_square(rows.detach(), chosen, valid)
        if self.training:
            for name in self.penalties:
                losses[name] = PENALTIES[name](rows, chosen, table, valid)
        return losses

    def initialize(self, latents: Tensor, mask: Tensor | None = None) -> None:
        check_latents(latents, self.dim, mask)
        if self.learns and not self._is_initialized:
            rows, valid = as_rows(latents.detach(), mask)
            known = _moderate(rows, valid)
            self._initialize(F.normalize(rows, dim=-1) if self.cosine else rows, known)

    @torch.no_grad()
    def _initialize(self, rows: Tensor, valid: Tensor | None) -> None:
        centers, counts = kmeans(
            rows, self.codebook_size, valid=valid, iterations=self.kmeans_iterations
        )
        found = counts.sum() > 0
        self.counts.copy_(torch.where(found, counts.float().clamp_min(1), self.counts))
        self._set_embeddings(torch.where(found, centers, self.embeddings))
        self.initialized.copy_(found)
        self._is_initialized = True

    @torch.no_grad()
    def _update(self, rows: Tensor, codes: Tensor, valid: Tensor | None) -> dict[str, Tensor]:
        """Move the running counts and means to this batch, then revive dead embeddings.

        The running sum of an embedding's latents is always its count times its value, so no
        second copy of the codebook is kept that a revival could forget to reset.

        Returns:
            the metrics, ``dead`` before the revival.
        """
        totals, sums = code_totals(rows, codes, self.codebook_size, valid)
        counts = totals.float()
        self.counts.lerp_(counts, 1 - self.decay)
        if self.learning == "ema":
            towards = sums - counts[:, None] * self.embeddings
            pace = (1 - self.decay) / self.counts.clamp_min(1e-6)
            self._set_embeddings(self.embeddings + pace[:, None] * towards)
        dead = self._dead()
        metrics = {**usage_of_counts(totals), "dead": dead.float().mean()[None]}
        if self.revive_below > 0:
            self._revive(rows, valid, dead)
        return metrics

    def _dead(self) -> Tensor:
        return is_dead(self.counts, self.revive_below or DEAD_BELOW)

    def _revive(self, rows: Tensor, valid: Tensor | None, dead: Tensor) -> None:
        fresh, total = distributed.draw_rows(rows, valid, self.codebook_size)
        restart = (dead | ~self.initialized) & (total > 0)
        # A tenth of a fair share: enough to outlive the next few batches, not to look popular.
        self.counts.copy_(torch.where(restart, 0.1 * self.counts.mean(), self.counts))
        self._set_embeddings(torch.where(restart[:, None], fresh, self.embeddings))
        self.initialized.logical_or_(total > 0)

    def _set_embeddings(self, embeddings: Tensor) -> None:
        self.embeddings.copy_(F.normalize(embeddings, dim=-1) if self.cosine else embeddings)


def _moderate(rows: Tensor, valid: Tensor | None) -> Tensor:
    """bool [N]: the valid rows whose sums and squares float32 holds; without NaN and Inf, then."""
    moderate: Tensor = torch.linalg.vector_norm(rows, ord=torch.inf, dim=-1) < 1e15
    return moderate if valid is None else moderate & valid


def _refresh_initialized(module: nn.Module, _keys: object) -> None:
    assert isinstance(module, VectorQuantizer)
    module._is_initialized = bool(module.initialized)
