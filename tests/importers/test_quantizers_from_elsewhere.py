"""Quantizers out of state dicts of vector-quantize-pytorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import vector_quantize_pytorch as vqp
from torch import Tensor, nn

from vqtok.errors import DataError
from vqtok.importers import load_quantizer
from vqtok.importers.vector_quantize_pytorch import fsq_of, quantizer_of

D, K = 8, 32

RIVALS: dict[str, Any] = {
    "vector": lambda: vqp.VectorQuantize(dim=D, codebook_size=K),
    "vector-projected": lambda: vqp.VectorQuantize(dim=D, codebook_size=K, codebook_dim=4),
    "vector-cosine": lambda: vqp.VectorQuantize(dim=D, codebook_size=K, use_cosine_sim=True),
    "vector-gradient": lambda: vqp.VectorQuantize(
        dim=D, codebook_size=K, learnable_codebook=True, ema_update=False
    ),
    "residual": lambda: vqp.ResidualVQ(dim=D, codebook_size=K, num_quantizers=3),
    "residual-projected": lambda: vqp.ResidualVQ(
        dim=D, codebook_size=K, num_quantizers=3, codebook_dim=4
    ),
    "simvq": lambda: vqp.SimVQ(dim=D, codebook_size=K),
    "residual-simvq": lambda: vqp.ResidualSimVQ(dim=D, codebook_size=K, num_quantizers=2),
    "lfq": lambda: vqp.LFQ(codebook_size=K),
    "lfq-projected": lambda: vqp.LFQ(codebook_size=K, dim=D),
}


def trained(name: str) -> nn.Module:
    torch.manual_seed(0)
    rival: nn.Module = RIVALS[name]().train()
    for _ in range(3):
        rival(latents(name))
    return rival.eval()


def latents(name: str) -> Tensor:
    return torch.randn(2, 200, 5 if name == "lfq" else D)


@torch.no_grad()
@pytest.mark.parametrize("name", RIVALS)
def test_codes_and_embeddings_are_those_of_the_package(name: str) -> None:
    rival = trained(name)
    ours = quantizer_of(rival.state_dict(), cosine="cosine" in name)
    x = latents(name)
    quantized, codes, *_ = rival(x)
    result = ours(x)
    codes = codes if codes.ndim == 3 else codes[..., None]
    assert torch.equal(result.codes, codes)
    torch.testing.assert_close(result.quantized, quantized, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.embed(codes), quantized, rtol=1e-4, atol=1e-5)


FSQS: dict[str, Any] = {
    "fsq": (lambda: vqp.FSQ(levels=[8, 5, 5, 3]), [8, 5, 5, 3], {}),
    "fsq-projected": (lambda: vqp.FSQ(levels=[7, 5, 6], dim=D), [7, 5, 6], {}),
    "fsq-symmetric": (
        lambda: vqp.FSQ(levels=[2, 5, 6], dim=D, preserve_symmetry=True),
        [2, 5, 6],
        {"symmetric": True},
    ),
    "residual-fsq": (
        lambda: vqp.ResidualFSQ(levels=[5, 5, 3], num_quantizers=3, dim=D),
        [5, 5, 3],
        {"num_codebooks": 3},
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("name", FSQS)
def test_codes_of_fsq_are_those_of_the_package(name: str) -> None:
    torch.manual_seed(0)
    make, levels, options = FSQS[name]
    rival = make().eval()
    x = 2 * torch.randn(2, 500, 4 if name == "fsq" else D)
    quantized, codes = rival(x)
    tensors = {f"model.{key}": value for key, value in rival.state_dict().items()}
    ours = fsq_of(tensors, levels, prefix="model.", **options)
    codes = codes.long() if codes.ndim == 3 else codes.long()[..., None]
    result = ours(x)
    assert torch.equal(result.codes, codes)
    assert codes.unique().numel() > 20
    torch.testing.assert_close(result.quantized, quantized, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.embed(codes), quantized, rtol=1e-4, atol=1e-5)


def test_levels_of_another_fsq_are_refused() -> None:
    rival = vqp.FSQ(levels=[7, 5, 6], dim=D)
    with pytest.raises(DataError, match=r"'project_in\.weight' has shape \[3, 8\]"):
        fsq_of(rival.state_dict(), [7, 5])


def test_inside_the_checkpoint_of_a_model(tmp_path) -> None:
    rival = trained("residual-projected")
    model = {f"net.vq.{name}": value for name, value in rival.state_dict().items()}
    path = tmp_path / "model.pt"
    torch.save({"state_dict": {"net.encoder.weight": torch.zeros(3), **model}}, path)
    x = latents("residual-projected")
    expected = rival(x)[1]
    assert torch.equal(load_quantizer(path)(x).codes, expected)
    assert torch.equal(load_quantizer(path, prefix="net.vq.")(x).codes, expected)


def test_what_is_no_such_quantizer_is_refused(tmp_path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"a": torch.zeros(1), "b": torch.zeros(1)}, path)
    with pytest.raises(DataError, match=r"model\.pt: there is no codebook"):
        load_quantizer(path)
    heads = vqp.VectorQuantize(
        dim=D, codebook_size=K, heads=2, codebook_dim=4, separate_codebook_per_head=True
    )
    with pytest.raises(DataError, match="2 heads"):
        quantizer_of(heads.state_dict())
    state = trained("vector-projected").state_dict()
    state["project_out.bias"] = torch.zeros(3)
    with pytest.raises(DataError, match=r"'project_out\.bias' has shape \[3\], expected \[8\]"):
        quantizer_of(state)
