"""What every quantizer promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtok.quantizers.usage import Usage


@dataclass(frozen=True)
class Quantized:
    """What a quantizer makes of a batch of latents.

    Attributes:
        quantized: [..., D], dtype of the latents; carries gradients back to them.
        codes: int64 [..., Q], each in [0, K_q), never negative.
        losses: unweighted scalar terms, float32 (``commitment``, ``codebook``, ...).
        metrics: ``perplexity``, ``usage`` and ``dead``, detached [Q], as
            :class:`~vqtok.quantizers.usage.Usage` defines them; reading them is the caller's
            choice, so a training step never waits for the device.
    """

    quantized: Tensor
    codes: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Quantizer(nn.Module, ABC):
    """Maps latents [..., D] to codes [..., Q] and back.

    Inside, everything is float32, under autocast too, and stays so when the model is converted
    (``model.bfloat16()``): running statistics would stop moving in half precision.

    State (codebooks, statistics, initialisation) moves only in training mode: ``eval()`` freezes
    it, and so does ``requires_grad_(False)`` of the quantizer or of any module around it. Rows of
    latents with NaN or Inf show in the losses and touch no state. Quantizers begin equal on every
    rank like any module (DistributedDataParallel sees to it); from then on all ranks agree bit for
    bit.

    A quantizer of one codebook that looks at each position alone has a ``usage`` and writes
    ``_quantize_rows``, ``embed`` and ``codebook_sizes``; one made of others writes ``forward``.
    """

    dim: int
    config: dict[str, Any]
    usage: Usage

    @property
    def learns_from_output(self) -> bool:
        """Whether gradients of ``quantized`` reach parameters of the quantizer, too."""
        return False

    @property
    @abstractmethod
    def codebook_sizes(self) -> tuple[int, ...]:
        """The codebook size K of each of the Q codebooks, at most 2^63."""

    def forward(
        self, latents: Tensor, mask: Tensor | None = None, *, num_codebooks: int | None = None
    ) -> Quantized:
        """Quantize.

        Args:
            latents: float [..., D] (float32, bfloat16, float16 or float64), D = ``dim``.
            mask: bool [...], True where a position counts. Other positions are taken as zeros:
                every codebook gives them its code of zeros, whatever they hold; they touch no
                statistics and no loss, and get no gradient.
            num_codebooks: use only the first codebooks (1 <= num_codebooks <= Q; default all).

        Raises:
            ValueError: the shapes do not fit, or ``num_codebooks`` is out of range; in eval mode
                also for NaN and Inf.
        """
        check_latents(latents, self.dim, mask)
        check_num_codebooks(num_codebooks, 1)
        with torch.autocast(latents.device.type, enabled=False):
            result = self._quantize_rows(*as_rows(latents, mask))
        return Quantized(
            result.quantized.reshape(latents.shape).to(latents.dtype),
            result.codes.reshape(*latents.shape[:-1], 1),
            result.losses,
            result.metrics,
        )

    def _quantize_rows(self, rows: Tensor, valid: Tensor | None) -> Quantized:
        """Quantize float32 rows [N, D] to codes [N]; rows that aren't valid (bool [N]) are 0."""
        raise NotImplementedError

    @abstractmethod
    def embed(self, codes: Tensor) -> Tensor:
        """Look codes up.

        Args:
            codes: integer [..., q] with 1 <= q <= Q: the codes of the first q codebooks.

        Returns:
            float32 [..., D].

        Raises:
            ValueError: q or a code is out of range.
        """

    @torch.no_grad()
    def codes_of(self, quantized: Tensor) -> Tensor:
        """The inverse of :meth:`embed`: the codes [..., Q] of float [..., D] that it returned.

        Exact where each codebook has its own share of the output (all but the residual and
        multi-scale quantizers, whose sums have no exact inverse: there it quantizes anew).
        """
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            return self(quantized).codes
        finally:
            for module, training in modes:
                module.training = training

    def metrics(self, codes: Tensor, valid: Tensor | None) -> dict[str, Tensor]:
        """What the codes int64 [N, q] of the first q codebooks tell of their usage.

        As in :class:`Quantized`, [q]; of the positions where ``valid`` (bool [N]) is True. In
        training a quantizer of one codebook counts them.
        """
        measured: dict[str, Tensor] = self.usage(codes[:, 0], valid)
        return measured

    def initialize(self, latents: Tensor, mask: Tensor | None = None) -> None:
        """Start what depends on data (k-means) from this batch, if it has not started yet.

        A forward pass in training does the same; most quantizers have nothing to start.
        """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Quantizer:
        def keep_precision(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if tensor.is_floating_point() and moved.dtype != tensor.dtype:
                return tensor.to(moved.device)
            return moved

        super()._apply(keep_precision, recurse)  # type: ignore[no-untyped-call]
        return self

    def __call__(
        self,
        latents: Tensor,
        mask: Tensor | None = None,
        *,
        lengths: Tensor | None = None,
        num_codebooks: int | None = None,
    ) -> Quantized:
        """As :meth:`forward`; instead of a mask, ``lengths`` may say which positions count.

        Args:
            lengths: integer [B], for latents [B, T, ..., D]: of sample b the first ``lengths[b]``
                of T count, each 0..T.

        Raises:
            ValueError: as :meth:`forward`, or wrong lengths (on a GPU those out of range are an
                assertion of the device, so that nothing waits for it).
        """
        if lengths is not None:
            if mask is not None:
                raise ValueError("give a mask or lengths, not both")
            mask = mask_of_lengths(lengths, latents.shape)
        if self.training and latents.is_floating_point():
            latents = with_switches(latents, self)
        result: Quantized = super().__call__(latents, mask, num_codebooks=num_codebooks)
        return result


def with_switches(latents: Tensor, quantizer: nn.Module) -> Tensor:
    """The same latents; what is made of them gives every :func:`new_switch` inside a gradient.

    DistributedDataParallel waits for the gradient of every parameter, empty ones too.
    """
    switches = [p for p in quantizer.parameters() if p.numel() == 0 and p.requires_grad]
    if not switches or not torch.is_grad_enabled():
        return latents
    passed: Tensor = _PassBy.apply(latents, *switches)  # type: ignore[no-untyped-call]
    return passed


def new_switch() -> nn.Parameter:
    """An empty parameter whose ``requires_grad`` says whether buffers beside it may learn.

    ``requires_grad_(False)`` of any module around them so freezes what is learned without a
    gradient like the rest. It has no place in a state dict.
    """
    return nn.Parameter(torch.empty(0))


class _PassBy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, latents: Tensor, *switches: Tensor) -> Tensor:
        ctx.count = len(switches)
        return latents.view_as(latents)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        empty = gradients[0].new_zeros(0, dtype=torch.float32)
        return gradients[0], *[empty] * ctx.count


def mask_of_lengths(lengths: Tensor, shape: Sequence[int]) -> Tensor:
    """The mask bool [B, T, ...] of latents of shape [B, T, ..., D] and lengths [B]."""
    integers = not (lengths.is_floating_point() or lengths.is_complex())
    if len(shape) < 3 or lengths.shape != shape[:1] or lengths.dtype == torch.bool or not integers:
        raise ValueError(
            f"lengths must be integers [B] for latents [B, T, ..., D], "
            f"not {lengths.dtype} {list(lengths.shape)} for {list(shape)}"
        )
    lengths = lengths.long()  # T need not fit into a smaller type
    inside = (lengths >= 0) & (lengths <= shape[1])
    if torch.compiler.is_compiling() or lengths.device.type != "cpu":
        torch._assert_async(inside.all(), f"lengths outside 0..{shape[1]}")
    elif not bool(inside.all()):
        sample = int((~inside).nonzero()[0])
        raise ValueError(
            f"lengths must be in 0..{shape[1]} for latents {list(shape)}, "
            f"but sample {sample} has {int(lengths[sample])}"
        )
    mask = torch.arange(shape[1], device=lengths.device) < lengths[:, None]
    return mask.reshape(*shape[:2], *[1] * (len(shape) - 3)).expand(shape[:-1])


def as_rows(latents: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Latents [..., D] as float32 rows [N, D], and the mask as bool [N]; masked rows are 0."""
    rows = zero_masked(latents.float(), mask).reshape(-1, latents.shape[-1])
    return rows, None if mask is None else mask.reshape(-1)


def zero_masked(latents: Tensor, mask: Tensor | None) -> Tensor:
    """Latents [..., D] with 0 wherever the bool mask [...] is False, whatever was there."""
    return latents if mask is None else torch.where(mask[..., None], latents, 0.0)


def masked_mean_square(latents: Tensor, quantized: Tensor, mask: Tensor | None) -> Tensor:
    """Mean squared difference of [..., D] over the positions of a bool mask [...]; 0 if none."""
    if mask is None:
        return F.mse_loss(latents, quantized, reduction="sum") / max(1, latents.numel())
    total = zero_masked(latents - quantized, mask).square().sum()
    return total / (mask.sum() * latents.shape[-1]).clamp_min(1)


def combine(results: Sequence[Quantized], weights: Sequence[float]) -> Quantized:
    """The results of a quantizer's parts: codes [..., sum Q], weighted sums of the losses.

    A loss that a part lacks counts as 0; metrics are joined to [sum Q].
    ``quantized`` is left to the caller: here it is that of the last part.
    """
    losses: dict[str, Tensor] = {}
    for result, weight in zip(results, weights, strict=True):
        for name, loss in result.losses.items():
            losses[name] = losses[name] + weight * loss if name in losses else weight * loss
    return Quantized(
        results[-1].quantized,
        torch.cat([result.codes for result in results], dim=-1),
        losses,
        join([result.metrics for result in results]),
    )


def join(metrics: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The metrics of parts, each [q], as [sum q]."""
    return {name: torch.cat([part[name] for part in metrics]) for name in metrics[0]}


def refuse_not_finite(rows: Tensor) -> None:
    """ValueError if rows [N, D] hold NaN or Inf; not checked while compiling."""
    if torch.compiler.is_compiling():
        return
    # The sum is the faster question; of rows near the largest float32 it may be Inf by itself.
    if not bool(rows.sum().isfinite()) and not bool(rows.isfinite().all()):
        raise ValueError("latents hold NaN or Inf")


def check_latents(latents: Tensor, dim: int, mask: Tensor | None) -> None:
    """Raise ValueError unless latents are [..., dim] floats and the mask is bool [...]."""
    if latents.shape[-1] != dim:
        raise ValueError(f"latents have dim {latents.shape[-1]}, codebook has dim {dim}")
    if not latents.is_floating_point():
        raise ValueError(f"latents must be floating point, not {latents.dtype}")
    if mask is not None and (mask.dtype != torch.bool or mask.shape != latents.shape[:-1]):
        raise ValueError(
            f"mask must be bool {tuple(latents.shape[:-1])}, not {mask.dtype} {tuple(mask.shape)}"
        )


def check_num_codebooks(num_codebooks: int | None, available: int) -> int:
    """The number of codebooks to use; ValueError unless 1 <= num_codebooks <= available."""
    if num_codebooks is None:
        return available
    if not 1 <= num_codebooks <= available:
        raise ValueError(f"num_codebooks must be in 1..{available}, not {num_codebooks}")
    return num_codebooks


def check_codes(codes: Tensor, codebook_sizes: tuple[int, ...]) -> None:
    """Raise ValueError unless codes are integers [..., q <= Q], each below its codebook's size."""
    if codes.is_floating_point() or codes.dtype == torch.bool:
        raise ValueError(f"codes must be integers, not {codes.dtype}")
    if codes.ndim == 0 or not 1 <= codes.shape[-1] <= len(codebook_sizes):
        raise ValueError(
            f"codes have shape {tuple(codes.shape)}, expected [..., 1..{len(codebook_sizes)}]"
        )
    if codes.numel() == 0:
        return
    for index, size in enumerate(codebook_sizes[: codes.shape[-1]]):
        column = codes[..., index].long()
        if torch.compiler.is_compiling():
            torch._assert_async(((column >= 0) & (column <= size - 1)).all(), "code out of range")
            continue
        low, high = (int(bound) for bound in torch.aminmax(column))
        if low < 0 or high >= size:
            raise ValueError(f"codebook {index} has codes 0..{size - 1}, got {low}..{high}")


def without_type(config: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor arguments inside a component's config."""
    return {key: value for key, value in config.items() if key != "type"}
