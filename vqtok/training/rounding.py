"""Smaller weights: the precision of shorter formats, kept in float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vqtok.quantizers import VectorQuantizer

# Float8 (e4m3) moves a table that lies within its range by 7e-4 of its mean square.
_NEGLIGIBLE = 1e-3


@torch.no_grad()
def round_to_half(model: nn.Module) -> None:
    """Round every floating tensor of a model to float16's precision, where its range allows.

    Saved tokenizers then take two bytes a weight, and are the model that was scored.
    """
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(_rounded(value))


@torch.no_grad()
def round_codebooks(model: nn.Module) -> None:
    """Round the codebooks of a model to float8's precision, one byte a value.

    The error is far below that of the codes: a codebook where it would be more than 0.1 % of its
    variance keeps its values.
    """
    for module in model.modules():
        if isinstance(module, VectorQuantizer) and not module.cosine:
            table = module.embeddings
            narrow = table.to(torch.float8_e4m3fn).float()
            error = (narrow - table).square().mean()
            if error <= _NEGLIGIBLE * table.var(dim=0, correction=0).mean():
                table.copy_(narrow)


def _rounded(value: Tensor) -> Tensor:
    narrow = value.half().float()
    return narrow if bool(narrow.isfinite().all()) else value
