"""Penalties. A new one is a file and a line in the registry."""

from __future__ import annotations

from vqtok.autoencoders.penalties.aux_k import AuxK
from vqtok.autoencoders.penalties.base import Context, Penalty
from vqtok.autoencoders.penalties.contractive import (
    Contractive,
    jacobian_square_norm,
    relative_jacobian_norm,
)
from vqtok.autoencoders.penalties.hutchinson import HutchinsonContractive
from vqtok.autoencoders.penalties.kl_rho import KLRho
from vqtok.autoencoders.penalties.l1 import L1

__all__ = [
    "L1",
    "PENALTIES",
    "AuxK",
    "Context",
    "Contractive",
    "HutchinsonContractive",
    "KLRho",
    "Penalty",
    "jacobian_square_norm",
    "relative_jacobian_norm",
]

PENALTIES: dict[str, type[Penalty]] = {
    "l1": L1,
    "kl_rho": KLRho,
    "contractive": Contractive,
    "contractive_hutchinson": HutchinsonContractive,
    "aux_k": AuxK,
}
