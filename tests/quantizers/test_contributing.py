"""The example in CONTRIBUTING.md keeps the promises that it is an example of."""

from pathlib import Path

import torch

from vqtok.quantizers import QUANTIZERS, build_quantizer

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"


def test_the_page_on_adding_a_quantizer(monkeypatch):
    code = PAGE.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    namespace = {"__name__": "mine"}
    exec(compile(code, str(PAGE), "exec"), namespace)
    monkeypatch.setitem(QUANTIZERS, "mine", namespace["Mine"])
    quantizer = build_quantizer({"type": "mine", "codebook_size": 9, "dim": 4})
    assert build_quantizer(quantizer.config).config == quantizer.config
    x = torch.randn(3, 5, 4, requires_grad=True)
    mask = torch.rand(3, 5) < 0.7
    result = quantizer(x, mask)
    nearest = torch.cdist(x.detach()[mask].double(), quantizer.embeddings.detach().double())
    assert torch.equal(result.codes[mask][:, 0], nearest.argmin(1))
    assert torch.equal(quantizer.embed(result.codes), result.quantized)
    (result.quantized.sum() + sum(result.losses.values())).backward()
    assert torch.equal(x.grad != 0, mask[..., None].expand(3, 5, 4))
    assert (quantizer.embeddings.grad != 0).any()
