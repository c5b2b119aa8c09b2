"""Vector quantization with one codebook (van den Oord et al., 2017, arXiv:1711.00937)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtok import ops
from vqtok.quantizers import distributed
from vqtok.quantizers.base import (
    Quantized,
    Quantizer,
    as_rows,
    check_codes,
    check_latents,
    masked_mean_square,
)
from vqtok.quantizers.gradients import GRADIENTS
from vqtok.quantizers.kmeans import code_counts, code_totals, kmeans
from vqtok.quantizers.penalties import PENALTIES
from vqtok.quantizers.usage import usage_of_counts

LEARNING = ("ema", "gradient")


class VectorQuantizer(Quantizer):
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
    Metrics: ``perplexity`` and ``usage`` of the batch, ``dead``, the fraction of embeddings that
    revival would restart (below 2 % of the mean share if it is off); each [1].
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
        revive_below: float = 0.02,
        penalties: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if codebook_size < 1 or dim < 1:
            raise ValueError(f"codebook_size and dim must be positive, not {codebook_size}, {dim}")
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
        self.codebook_size = codebook_size
        self.dim = dim
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
        self.register_buffer("counts", torch.ones(codebook_size))
        self.register_buffer("initialized", torch.tensor(False))
        self.counts: Tensor
        self.initialized: Tensor
        # The host's copy of `initialized`: asking the tensor would wait for the device each step.
        self._is_initialized = False
        self.register_load_state_dict_post_hook(_refresh_initialized)  # type: ignore[no-untyped-call]

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return (self.codebook_size,)

    def _quantize_rows(self, rows: Tensor, valid: Tensor | None) -> Quantized:
        if self.cosine:
            rows = F.normalize(rows, dim=-1)
        if self.learns and not self._is_initialized:
            self._initialize(rows.detach(), valid)
        table = self._lookup_table()
        # In training a NaN shows in the loss; asking here would wait for the device.
        codes = ops.nearest(rows.detach(), table.detach(), check=not self.training)
        chosen = F.embedding(codes, table)
        losses = self._losses(rows, chosen, table, valid)
        counts = code_counts(codes, self.codebook_size, valid)
        dead = self._update(rows.detach(), codes, valid) if self.learns else self._dead()
        metrics = {**usage_of_counts(counts), "dead": dead.float().mean()[None]}
        return Quantized(self.pass_gradient(rows, chosen.detach()), codes, losses, metrics)

    def embed(self, codes: Tensor) -> Tensor:
        check_codes(codes, self.codebook_sizes)
        return F.embedding(codes[..., 0].long(), self._lookup_table())

    def _lookup_table(self) -> Tensor:
        """The embeddings [K, D], on the unit sphere if cosine."""
        if self.learning == "ema":
            return self.embeddings
        # A copy: revival writes into the parameter before the backward pass needs its values.
        table = self.embeddings.clone()
        return F.normalize(table, dim=-1) if self.cosine else table

    def _losses(
        self, rows: Tensor, chosen: Tensor, table: Tensor, valid: Tensor | None
    ) -> dict[str, Tensor]:
        losses = {"commitment": masked_mean_square(rows - chosen.detach(), valid)}
        if self.learning == "gradient":
            losses["codebook"] = masked_mean_square(rows.detach() - chosen, valid)
        if self.training:
            for name in self.penalties:
                losses[name] = PENALTIES[name](rows, chosen, table, valid)
        return losses

    def initialize(self, latents: Tensor, mask: Tensor | None = None) -> None:
        check_latents(latents, self.dim, mask)
        if self.learns and not self._is_initialized:
            rows, valid = as_rows(latents.detach(), mask)
            self._initialize(F.normalize(rows, dim=-1) if self.cosine else rows, valid)

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
    def _update(self, rows: Tensor, codes: Tensor, valid: Tensor | None) -> Tensor:
        """Move the running counts and means to this batch, then revive dead embeddings.

        The running sum of an embedding's latents is always its count times its value, so no
        second copy of the codebook is kept that a revival could forget to reset.

        Returns:
            bool [K], which embeddings were dead.
        """
        totals, sums = code_totals(rows, codes, self.codebook_size, valid)
        counts = totals.float()
        self.counts.lerp_(counts, 1 - self.decay)
        if self.learning == "ema":
            towards = sums - counts[:, None] * self.embeddings
            pace = (1 - self.decay) / self.counts.clamp_min(1e-6)
            self._set_embeddings(self.embeddings + pace[:, None] * towards)
        dead = self._dead()
        if self.revive_below > 0:
            self._revive(rows, valid, dead)
        return dead

    def _dead(self) -> Tensor:
        return self.counts < (self.revive_below or 0.02) * self.counts.mean()

    def _revive(self, rows: Tensor, valid: Tensor | None, dead: Tensor) -> None:
        fresh, total = distributed.draw_rows(rows, valid, self.codebook_size)
        restart = (dead | ~self.initialized) & (total > 0)
        # A tenth of a fair share: enough to outlive the next few batches, not to look popular.
        self.counts.copy_(torch.where(restart, 0.1 * self.counts.mean(), self.counts))
        self._set_embeddings(torch.where(restart[:, None], fresh, self.embeddings))
        self.initialized.logical_or_(total > 0)

    def _set_embeddings(self, embeddings: Tensor) -> None:
        self.embeddings.copy_(F.normalize(embeddings, dim=-1) if self.cosine else embeddings)


def _refresh_initialized(module: nn.Module, _keys: object) -> None:
    assert isinstance(module, VectorQuantizer)
    module._is_initialized = bool(module.initialized)
