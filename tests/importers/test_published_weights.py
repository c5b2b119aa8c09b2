"""Tensors that no model has are refused, whatever torch would do with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vqtok import importers
from vqtok.errors import DataError
from vqtok.importers import Checkpoint, Family, read_checkpoint
from vqtok.importers.weights import Weights


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(3, dtype=torch.int32),
        torch.ones(3, dtype=torch.bool),
        torch.ones(3, dtype=torch.complex64),
        torch.ones(3).to_sparse(),
    ],
)
def test_other_numbers_are_refused(value):
    with pytest.raises(DataError, match=r"'bias' is .*, expected"):
        Weights({"weight": torch.ones(3), "bias": value}, lambda name: name).load_into(
            nn.LayerNorm(3, bias=True)
        )


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn]
)
def test_other_precisions_are_read(dtype):
    model = nn.Linear(3, 2)
    tensors = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}
    Weights({k: v.to(dtype) for k, v in tensors.items()}, lambda name: name).load_into(model)
    assert torch.equal(model.weight, tensors["weight"])
    assert model.weight.dtype == torch.float32


def test_numbers_beyond_the_precision_of_the_model_are_refused():
    tensors = {"weight": torch.full((2, 3), 1e300, dtype=torch.float64), "bias": torch.ones(2)}
    with pytest.raises(DataError, match="'weight' holds NaN or Inf"):
        Weights(tensors, lambda name: name).load_into(nn.Linear(3, 2))


@pytest.mark.parametrize(
    ("direction", "length"),
    [
        (torch.ones(4, 3, 2), torch.zeros(0)),
        (torch.ones(4, 3, 2), torch.ones(3, 1, 1)),
        (torch.ones(4, 3, 2), torch.tensor(1.0)),
        (torch.ones(0, 3, 2), torch.ones(0, 1, 1)),
        (torch.tensor(1.0), torch.tensor(1.0)),
        (torch.ones(4, 3, 2, dtype=torch.int32), torch.ones(4, 1, 1)),
        (torch.ones(4, 3, 2), torch.ones(4, 1, 1, dtype=torch.complex64)),
    ],
)
def test_weight_norm_of_other_shapes_is_refused(direction, length):
    weights = Weights({"a.weight_v": direction, "a.weight_g": length}, lambda name: name)
    with pytest.raises(DataError, match=r"'a\.weight_v', 'a\.weight_g' do not fit together"):
        weights.fold_weight_norm()


@pytest.mark.parametrize("error", [RuntimeError, ZeroDivisionError, IndexError, MemoryError])
def test_a_model_that_cannot_be_is_the_checkpoints_fault(error, tmp_path: Path, monkeypatch):
    def build(checkpoint: Checkpoint):
        raise error("no channels\nand more")

    monkeypatch.setitem(importers.FAMILIES, "toy", Family(lambda checkpoint: True, build))
    save_file({"a": torch.ones(2), "b": torch.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match=r"as toy: no channels$"):
        importers.load(tmp_path / "a.safetensors", "toy")


def test_a_checkpoint_that_holds_itself_is_refused(tmp_path: Path):
    endless: dict[str, object] = {"epoch": 3}
    endless["state_dict"] = endless
    torch.save(endless, tmp_path / "a.pt")
    with pytest.raises(DataError, match="no tensors"):
        read_checkpoint(tmp_path / "a.pt")
