"""Metrics of codes: counting and sorting them give the same."""

import pytest
import torch

from vqtok.quantizers import usage


@pytest.mark.parametrize("masked", [False, True])
def test_counting_and_sorting_agree(monkeypatch, masked):
    codes = torch.randint(0, 40, (500,)) ** 2
    valid = torch.rand(500) < 0.5 if masked else None
    counted = usage.usage_of_codes(codes, 2000, valid)
    monkeypatch.setattr(usage, "_MOST_COUNTED", 0)
    ordered = usage.usage_of_codes(codes, 2000, valid)
    for name, value in counted.items():
        torch.testing.assert_close(ordered[name], value)
    present = codes if valid is None else codes[valid]
    assert float(ordered["usage"]) == pytest.approx(len(present.unique()) / 2000)
