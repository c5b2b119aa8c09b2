"""Priors: small networks that predict codes, trained in floats, shipped in integers."""

from __future__ import annotations

from vqtok.training.prior.fit import PriorConfig, train_prior
from vqtok.training.prior.plan import PriorPlan, plan_prior

__all__ = ["PriorConfig", "PriorPlan", "plan_prior", "train_prior"]
