"""What all variants understand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vqtok.autoencoders.corruptions import Corruption, GaussianNoise, Masking
from vqtok.autoencoders.likelihoods import LIKELIHOODS, Likelihood
from vqtok.autoencoders.registry import build
from vqtok.autoencoders.scalings import Scaling, Span, Standardize

Shape = tuple[int, ...]
"""Of a sample: (F,) for the rows of a table, (C, H, W) for images, (T, C) for series."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What all variants understand.

    Attributes:
        code_size: dimensions of the latents (atoms, for ``sparse``); None for the variant's own.
        hidden: widths of hidden layers, or of convolution stages; None for the variant's own.
        stack: "mlp" or "conv" (for samples [C, H, W]).
        scaling: "standardize", "span" (to [0, 1]) or "none"; None for what fits: samples
            [C, H, W] are spanned as a whole, others standardized feature by feature.
        likelihood: a name in ``LIKELIHOODS``; None for the variant's own, "gaussian" (of a VAE
            "learned_gaussian": with a scale that is too wide it would ignore its latents).
        noise: standard deviation of Gaussian corruption, in scaled units.
        masked: fraction of values that are masked (an alternative to noise).
    """

    code_size: int | None = None
    hidden: Sequence[int] | None = None
    stack: str = "mlp"
    scaling: str | None = None
    likelihood: str | None = None
    noise: float = 0.0
    masked: float = 0.0

    def __post_init__(self) -> None:
        if self.stack not in ("mlp", "conv"):
            raise ValueError(f"stack must be mlp or conv, not {self.stack!r}")
        if self.scaling not in (None, "standardize", "span", "none"):
            raise ValueError(f"scaling must be standardize, span or none, not {self.scaling!r}")
        if self.noise and self.masked:
            raise ValueError("choose noise or masked, not both")


def scaling_of(shape: Shape, options: Options) -> Scaling | None:
    """The scaling that the options choose, or that fits the data."""
    kind = options.scaling or ("span" if len(shape) == 3 else "standardize")
    if options.likelihood == "bernoulli" and options.scaling is None:
        kind = "span"
    if kind == "none":
        return None
    # Pixels share a scale; the features of a table each have their own.
    each = [1] * len(shape) if len(shape) == 3 else [*[1] * (len(shape) - 1), shape[-1]]
    return Span(each) if kind == "span" else Standardize(each)


def likelihood_of(options: Options, default: str = "gaussian") -> Likelihood:
    """The likelihood that the options choose, or a variant's own."""
    return build("likelihood", LIKELIHOODS, {"type": options.likelihood or default})


def corruption_of(options: Options) -> Corruption | None:
    """The corruption that the options choose, if any."""
    if options.noise:
        return GaussianNoise(options.noise)
    return Masking(options.masked) if options.masked else None
