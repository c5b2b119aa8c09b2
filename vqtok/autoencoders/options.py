"""What all variants understand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from types import NoneType
from typing import Any, get_args

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


# The least that whole numbers may be, where that is not 1.
_LEAST = {"codebook_size": 2, "warmup": 0}


def check_settings(settings: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
    """ValueError unless each setting is of its type and in range.

    Args:
        settings: by name.
        hints: the type of each: whole numbers count from 1, other numbers from 0.
    """
    for name, value in settings.items():
        kinds = get_args(hints[name]) or (hints[name],)
        if value is None and NoneType in kinds:
            continue
        if str in kinds:
            wanted = None if isinstance(value, str) else "a name"
        elif int in kinds:
            least = _LEAST.get(name, 1)
            wanted = None if _is_whole(value, least) else f"a whole number of at least {least}"
        elif float in kinds:
            wanted = None if _is_amount(value) else "a number of at least 0"
        else:
            listed = isinstance(value, Sequence) and not isinstance(value, str)
            whole = listed and all(_is_whole(each, 1) for each in value)
            wanted = None if whole else "whole numbers of at least 1, such as [64, 32]"
        if wanted is not None:
            raise ValueError(f"{name} must be {wanted}, not {value!r}")


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _is_amount(value: Any) -> bool:
    real = isinstance(value, Real) and not isinstance(value, bool)
    return real and math.isfinite(value) and float(value) >= 0


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
