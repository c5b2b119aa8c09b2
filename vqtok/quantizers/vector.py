"""Vector quantization with one codebook (van den Oord et al., 2017, arXiv:1711.00937)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtok import ops
from vqtok.quantizers import distributed
from vqtok.quantizers.base import (
    Quantized,
    Quantizer,
    check_codes,
    check_latents,
    check_num_codebooks,
    masked_mean_square,
)
from vqtok.quantizers.gradients import GRADIENTS
from vqtok.quantizers.kmeans import kmeans

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

    Losses: ``commitment``, the mean squared distance of latents to their (constant) embeddings;
    with gradient learning also ``codebook``, the same with the constants exchanged.
    Metrics, over the batch: ``perplexity`` and ``usage`` [1].
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
    ) -> None:
        super().__init__()
        if codebook_size < 1 or dim < 1:
            raise ValueError(f"codebook_size and dim must be positive, not {codebook_size}, {dim}")
        if learning not in LEARNING or gradient not in GRADIENTS:
            raise ValueError(
                f"learning must be one of {LEARNING} and gradient one of {tuple(GRADIENTS)}, "
                f"not {learning!r} and {gradient!r}"
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
        self.codebook_size = codebook_size
        self.dim = dim
        self.learning = learning
        self.decay = decay
        self.cosine = cosine
        self.pass_gradient = GRADIENTS[gradient]
        self.kmeans_iterations = kmeans_iterations
        self.revive_below = revive_below
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

    def forward(
        self, latents: Tensor, mask: Tensor | None = None, *, num_codebooks: int | None = None
    ) -> Quantized:
        check_latents(latents, self.dim, mask)
        check_num_codebooks(num_codebooks, 1)
        with torch.autocast(latents.device.type, enabled=False):
            flat = latents.float().reshape(-1, self.dim)
            if self.cosine:
                flat = F.normalize(flat, dim=-1)
            kept = flat if mask is None else flat[mask.reshape(-1)]
            if self.training and not self._is_initialized:
                self._initialize(kept.detach())
            table = self._lookup_table()
            # In training a NaN shows in the loss; asking here would wait for the device.
            codes = ops.nearest(flat.detach(), table.detach(), check=not self.training)
            chosen = F.embedding(codes, table)
            kept_codes = codes if mask is None else codes[mask.reshape(-1)]
            kept_chosen = chosen if mask is None else chosen[mask.reshape(-1)]
            losses = self._losses(kept, kept_chosen)
            metrics = self._metrics(kept_codes)
            if self.training:
                self._update(kept.detach(), kept_codes)
            quantized = self.pass_gradient(flat, chosen.detach())
        return Quantized(
            quantized.reshape(latents.shape).to(latents.dtype),
            codes.reshape(*latents.shape[:-1], 1),
            losses,
            metrics,
        )

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

    def _losses(self, latents: Tensor, chosen: Tensor) -> dict[str, Tensor]:
        losses = {"commitment": masked_mean_square(latents - chosen.detach(), None)}
        if self.learning == "gradient":
            losses["codebook"] = masked_mean_square(latents.detach() - chosen, None)
        return losses

    @torch.no_grad()
    def _metrics(self, codes: Tensor) -> dict[str, Tensor]:
        counts = torch.bincount(codes, minlength=self.codebook_size).float()
        share = counts / counts.sum().clamp_min(1)
        entropy = -torch.special.xlogy(share, share).sum()
        usage = (counts > 0).float().mean()
        return {"perplexity": entropy.exp()[None], "usage": usage[None]}

    @torch.no_grad()
    def _initialize(self, latents: Tensor) -> None:
        latents = distributed.gather_rows(latents)
        if len(latents) == 0:
            return
        centers, counts = kmeans(latents, self.codebook_size, iterations=self.kmeans_iterations)
        centers, counts = distributed.from_first_rank(centers), distributed.from_first_rank(counts)
        self.counts.copy_(counts.clamp_min(1))
        self._set_embeddings(centers)
        self.initialized.fill_(True)
        self._is_initialized = True

    @torch.no_grad()
    def _update(self, latents: Tensor, codes: Tensor) -> None:
        """Move the running counts and means to this batch, then revive dead embeddings.

        The running sum of an embedding's latents is always its count times its value, so no
        second copy of the codebook is kept that a revival could forget to reset.
        """
        counts, sums = ops.ema_update(latents, codes, self.codebook_size)
        counts = distributed.sum_over_ranks(counts).float()
        sums = distributed.sum_over_ranks(sums)
        self.counts.lerp_(counts, 1 - self.decay)
        if self.learning == "ema":
            towards = sums - counts[:, None] * self.embeddings
            pace = (1 - self.decay) / self.counts.clamp_min(1e-6)
            self._set_embeddings(self.embeddings + pace[:, None] * towards)
        if self.revive_below > 0:
            self._revive(latents)

    def _revive(self, latents: Tensor) -> None:
        latents = distributed.gather_rows(latents)
        if len(latents) == 0:
            return
        mean = self.counts.mean()
        dead = self.counts < self.revive_below * mean
        rows = torch.randint(len(latents), (self.codebook_size,), device=latents.device)
        fresh = distributed.from_first_rank(latents[rows])
        # A tenth of a fair share: enough to outlive the next few batches, not to look popular.
        self.counts.copy_(torch.where(dead, 0.1 * mean, self.counts))
        self._set_embeddings(torch.where(dead[:, None], fresh, self.embeddings))

    def _set_embeddings(self, embeddings: Tensor) -> None:
        self.embeddings.copy_(F.normalize(embeddings, dim=-1) if self.cosine else embeddings)


def _refresh_initialized(module: nn.Module, _keys: object) -> None:
    assert isinstance(module, VectorQuantizer)
    module._is_initialized = bool(module.initialized)
