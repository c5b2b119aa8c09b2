"""The decoder-only Transformer of train_multimodal.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Decoder(nn.Module):
    """Rotary positions, RMS norms, squared-ReLU MLPs; embeddings are shared with the output.

    Attention is causal and stays inside a document.
    """

    def __init__(self, vocabulary_size: int, dim: int, layers: int, heads: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, dim)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(dim, heads) for _ in range(layers))
        self.norm = nn.RMSNorm(dim)
        self.head_dim = dim // heads

    def forward(self, tokens: Tensor, segments: Tensor, positions: Tensor) -> Tensor:
        """Logits [B, L, size] of the next tokens, from tokens, segments and positions [B, L]."""
        length = tokens.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
        mask = (segments[:, None, :] == segments[:, :, None]) & causal
        rotation = rotations(positions, self.head_dim)
        x = self.embedding(tokens) * self.embedding.embedding_dim**0.5
        for layer in self.layers:
            x = layer(x, mask[:, None], rotation)
        return F.linear(self.norm(x), self.embedding.weight)

    @torch.no_grad()
    def generate(self, prompt: Tensor, ends: list[int], most: int, top: int = 64) -> Tensor:
        """One sequence that goes on from ``prompt`` int64 [n], to a token of ``ends`` or ``most``.

        Each token is drawn from the ``top`` likeliest ones.
        """
        tokens = prompt[None]
        for _ in range(most):
            positions = torch.arange(tokens.shape[1])[None]
            with torch.autocast("cpu", torch.bfloat16):
                logits = self(tokens, torch.ones_like(tokens), positions)[0, -1].float()
            best = logits.topk(min(top, len(logits)))
            chosen = best.indices[torch.multinomial(best.values.softmax(0), 1)]
            tokens = torch.cat([tokens, chosen[None]], 1)
            if int(chosen) in ends:
                break
        return tokens[0]


class Layer(nn.Module):
    """Attention and MLP, each on the normed input and added to it."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.RMSNorm(dim), nn.RMSNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.up = nn.Linear(dim, 4 * dim, bias=False)
        self.down = nn.Linear(4 * dim, dim, bias=False)
        for last in (self.out, self.down):
            nn.init.zeros_(last.weight)

    def forward(self, x: Tensor, mask: Tensor, rotation: Tensor) -> Tensor:
        """x [B, L, D]; mask bool [B, 1, L, L]; rotation complex [B, 1, L, D / heads / 2]."""
        q, k, v = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        q, k, v = (each.transpose(1, 2) for each in (q, k, v))
        q, k = rotate(q, rotation), rotate(k, rotation)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.relu(self.up(self.mlp_norm(x))).square())


def rotations(positions: Tensor, head_dim: int) -> Tensor:
    """Unit complex numbers [B, 1, L, head_dim / 2] of positions [B, L]."""
    rates = 10000 ** -(torch.arange(0, head_dim, 2) / head_dim)
    angles = positions[:, None, :, None] * rates
    return torch.polar(torch.ones_like(angles), angles)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Pairs of [B, H, L, head_dim] turned by the angles of their positions."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * rotation).flatten(-2).type_as(x)
