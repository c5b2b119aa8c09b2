"""Where a place is, as an angle (Su et al., 2021, arXiv:2104.09864)."""

from __future__ import annotations

import torch
from torch import Tensor


class Rotation:
    """Turns pairs of dimensions by an angle that grows with the place.

    Dimension i of a head is paired with i + half.

    Args:
        places: how many.
        head: dimensions of a head, even.
        like: what the tables are to be like.
        base: the slowest pair turns by one radian in about so many places.
    """

    def __init__(self, places: int, head: int, like: Tensor, base: float = 10_000.0) -> None:
        speed = 1 / base ** (torch.arange(0, head, 2, dtype=torch.float32) / head)
        angle = torch.arange(places, dtype=torch.float32)[:, None] * speed
        angle = torch.cat([angle, angle], dim=-1).to(like)
        self.cos, self.sin = angle.cos(), angle.sin()

    def __call__(self, x: Tensor) -> Tensor:
        """[..., places, head] -> the same, turned."""
        low, high = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat([-high, low], dim=-1) * self.sin
