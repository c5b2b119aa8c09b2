"""Attention and Transformer blocks (Vaswani et al., 2017), all at once or step by step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

# The keys and values of the positions so far, each [B, heads, t, d].
Past = tuple[Tensor, Tensor]


class SelfAttention(nn.Module):
    """Every position looks at every other, or at those before it.

    Args:
        width: channels of a position, a multiple of ``heads``.
        heads: attention heads.
        causal: look at this and earlier positions only.
    """

    def __init__(self, width: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        _check_heads(width, heads)
        self.heads = heads
        self.causal = causal
        self.project_in = nn.Linear(width, 3 * width, bias=False)
        self.project_out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """float [B, T, width] -> [B, T, width].

        The mask, bool [B, T], says where anyone may look; causal attention has no use for it, as
        padding comes last.
        """
        query, key, value = self._split(x)
        seen = None if mask is None or self.causal else mask[:, None, None]
        return self._join(
            F.scaled_dot_product_attention(query, key, value, attn_mask=seen, is_causal=self.causal)
        )

    def step(self, x: Tensor, past: Past | None) -> tuple[Tensor, Past]:
        """One more position [B, 1, width] of a causal sequence, and what the last step returned."""
        query, key, value = self._split(x)
        if past is not None:
            key = torch.cat([past[0], key], dim=2)
            value = torch.cat([past[1], value], dim=2)
        return self._join(F.scaled_dot_product_attention(query, key, value)), (key, value)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = "b t (parts h d) -> parts b h t d"
        query, key, value = rearrange(self.project_in(x), parts, parts=3, h=self.heads)
        return query, key, value

    def _join(self, mixed: Tensor) -> Tensor:
        result: Tensor = self.project_out(rearrange(mixed, "b h t d -> b t (h d)"))
        return result


class CrossAttention(nn.Module):
    """Every position looks at all positions of another sequence.

    Args:
        width: channels of a position, a multiple of ``heads``.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        _check_heads(width, heads)
        self.heads = heads
        self.project_query = nn.Linear(width, width, bias=False)
        self.project_source = nn.Linear(width, 2 * width, bias=False)
        self.project_out = nn.Linear(width, width)

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, T, width] looks at source [B, S, width] where the mask bool [B, S] is True."""
        parts = "b s (parts h d) -> parts b h s d"
        query = rearrange(self.project_query(x), "b t (h d) -> b h t d", h=self.heads)
        key, value = rearrange(self.project_source(source), parts, parts=2, h=self.heads)
        seen = None if mask is None else mask[:, None, None]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        result: Tensor = self.project_out(rearrange(mixed, "b h t d -> b t (h d)"))
        return result


class MLP(nn.Sequential):
    """Two layers with a GELU between them, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


class SelfBlock(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))`` (pre-norm).

    Args:
        width: channels of a position, a multiple of ``heads``.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.mlp = nn.Sequential(nn.LayerNorm(width), MLP(width))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, T, width], mask bool [B, T] -> [B, T, width]."""
        x = x + self.attention(self.norm(x), mask)
        mixed: Tensor = self.mlp(x)
        return x + mixed


class CrossBlock(nn.Module):
    """``x + attention(norm(x), norm(source))``, then ``x + mlp(norm(x))``.

    No position of x sees another: each is a question of its own to the source.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.source_norm = nn.LayerNorm(width)
        self.attention = CrossAttention(width, heads)
        self.mlp = nn.Sequential(nn.LayerNorm(width), MLP(width))

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """[B, T, width], source [B, S, width] -> [B, T, width]."""
        x = x + self.attention(self.norm(x), self.source_norm(source))
        mixed: Tensor = self.mlp(x)
        return x + mixed


class CausalBlock(nn.Module):
    """Causal self-attention, then a :class:`CrossBlock`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, causal=True)
        self.cross = CrossBlock(width, heads)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """[B, T, width], source [B, S, width] -> [B, T, width]."""
        x = x + self.attention(self.norm(x))
        result: Tensor = self.cross(x, source)
        return result

    def step(self, x: Tensor, past: Past | None, source: Tensor) -> tuple[Tensor, Past]:
        """One more position [B, 1, width]; see :meth:`SelfAttention.step`."""
        attended, past = self.attention.step(self.norm(x), past)
        return self.cross(x + attended, source), past


def _check_heads(width: int, heads: int) -> None:
    if width < 1 or heads < 1 or width % heads:
        raise ValueError(f"width must be a multiple of heads, not {width} and {heads}")
