import math

import pytest
import torch

from vqtok.nn.attention import CausalBlock, CrossAttention, SelfAttention, SelfBlock


def by_hand(query, key, value, allowed):
    """Attention of one head, position by position, in float64."""
    out = torch.zeros(len(query), value.shape[1], dtype=torch.float64)
    for place in range(len(query)):
        seen = [other for other in range(len(key)) if allowed(place, other)]
        weights = [
            math.exp(float(query[place] @ key[other]) / query.shape[1] ** 0.5) for other in seen
        ]
        for weight, other in zip(weights, seen, strict=True):
            out[place] += weight / sum(weights) * value[other]
    return out


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_is_the_formula(causal):
    torch.manual_seed(0)
    layer = SelfAttention(6, 2, causal=causal).double()
    x = torch.randn(1, 5, 6, dtype=torch.float64)
    mask = torch.tensor([[True, True, True, True, False]])
    parts = (x[0] @ layer.project_in.weight.T).detach().chunk(3, dim=1)
    heads = []
    for head in (slice(0, 3), slice(3, 6)):
        query, key, value = (part[:, head] for part in parts)
        allowed = (lambda t, s: s <= t) if causal else (lambda t, s: s < 4)
        heads.append(by_hand(query, key, value, allowed))
    expected = torch.cat(heads, 1) @ layer.project_out.weight.T + layer.project_out.bias
    torch.testing.assert_close(layer(x, mask)[0, :4], expected[:4].detach())


def test_cross_attention_is_the_formula():
    torch.manual_seed(0)
    layer = CrossAttention(4, 1).double()
    x, source = torch.randn(1, 3, 4).double(), torch.randn(1, 6, 4).double()
    mask = torch.tensor([[True, False, True, True, False, True]])
    query = (x[0] @ layer.project_query.weight.T).detach()
    key, value = (source[0] @ layer.project_source.weight.T).detach().chunk(2, dim=1)
    mixed = by_hand(query, key, value, lambda t, s: bool(mask[0, s]))
    expected = mixed @ layer.project_out.weight.T + layer.project_out.bias
    torch.testing.assert_close(layer(x, source, mask)[0], expected.detach())


def test_steps_are_the_whole():
    torch.manual_seed(0)
    block = CausalBlock(8, 2).double().eval()
    x, source = torch.randn(3, 7, 8).double(), torch.randn(3, 4, 8).double()
    whole, past = block(x, source), None
    for place in range(7):
        one, past = block.step(x[:, place : place + 1], past, source)
        torch.testing.assert_close(one[:, 0], whole[:, place])


def test_heads_divide_the_width():
    with pytest.raises(ValueError, match="multiple of heads, not 6 and 4"):
        SelfBlock(6, 4)
