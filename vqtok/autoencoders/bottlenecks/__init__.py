"""Bottlenecks. A new one is a file and a line in the registry; quantizers have their own
(:mod:`vqtok.quantizers`) and fit wherever these do."""

from __future__ import annotations

from vqtok.autoencoders.bottlenecks.base import Bottleneck, Squeezed, sum_per_sample
from vqtok.autoencoders.bottlenecks.batch_top_k import BatchTopK
from vqtok.autoencoders.bottlenecks.gaussian import GaussianBottleneck
from vqtok.autoencoders.bottlenecks.identity import IdentityBottleneck
from vqtok.autoencoders.bottlenecks.jump_relu import JumpReLU
from vqtok.autoencoders.bottlenecks.sparse import SparseBottleneck
from vqtok.autoencoders.bottlenecks.top_k import TopK

__all__ = [
    "BOTTLENECKS",
    "BatchTopK",
    "Bottleneck",
    "GaussianBottleneck",
    "IdentityBottleneck",
    "JumpReLU",
    "SparseBottleneck",
    "Squeezed",
    "TopK",
    "sum_per_sample",
]

BOTTLENECKS: dict[str, type[Bottleneck]] = {
    "identity": IdentityBottleneck,
    "top_k": TopK,
    "batch_top_k": BatchTopK,
    "jump_relu": JumpReLU,
    "gaussian": GaussianBottleneck,
}
