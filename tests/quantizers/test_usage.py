"""Metrics of codes, beside a count of every code in float64."""

import math

import numpy as np
import pytest
import torch

from vqtok.quantizers import FSQ, LFQ, SimVQ, usage
from vqtok.quantizers.usage import Usage


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


def dead_by_definition(batches, size):
    """From the codes of all batches so far, oldest first."""
    recent = np.zeros(size)
    for codes in batches:
        recent = 0.99 * recent + np.bincount(codes.numpy(), minlength=size)
    return float((recent < 0.1 * recent.sum() / size).mean())


def drawn(size, seed, positions=200):
    """Codes of which the low ones are frequent, and the more the later the seed."""
    share = torch.rand(positions, generator=torch.Generator().manual_seed(seed))
    return (share ** (1 + seed) * size).long()


def test_dead_is_what_few_positions_chose_lately():
    size, measure, batches = 50, Usage(50).train(), []
    found = []
    for seed in range(60):
        batches.append(drawn(size, seed))
        found.append(float(measure(batches[-1], None)["dead"]))
        assert found[-1] == pytest.approx(dead_by_definition(batches, size))
    assert found[-1] > found[1]
    # Evaluation reads the counts, and leaves them.
    measure.eval()
    for seed in range(2):
        assert float(measure(drawn(size, seed), None)["dead"]) == found[-1]


def test_a_code_that_is_chosen_no_more_dies():
    measure = Usage(2).train()
    dead = [float(measure(torch.tensor([0, 1]), None)["dead"]) for _ in range(20)]
    dead += [float(measure(torch.tensor([0, 0]), None)["dead"]) for _ in range(400)]
    assert dead[:21] == [0.0] * 21
    assert dead[-1] == 0.5
    assert sorted(dead) == dead


def test_before_any_training_dead_is_of_the_batch():
    codes = drawn(50, 3)
    assert float(Usage(50).eval()(codes, None)["dead"]) == pytest.approx(
        dead_by_definition([codes], 50)
    )
    nothing = Usage(50).train()(codes, torch.zeros(200, dtype=torch.bool))
    assert {name: float(value) for name, value in nothing.items()} == {
        "perplexity": 1.0,
        "usage": 0.0,
        "dead": 0.0,
    }


@pytest.mark.parametrize("factors", [(5, 2, 7), (2,) * 8, (3,)])
def test_factors_are_the_digits_of_a_code(monkeypatch, factors):
    monkeypatch.setattr(usage, "_MOST_COUNTED", 2)
    size = math.prod(factors)
    measure = Usage(*factors).train()
    batches = [drawn(size, 5 * seed, positions=60) for seed in range(4)]
    for codes in batches:
        dead = float(measure(codes, None)["dead"])
    digits = np.unravel_index(np.arange(size), factors, order="F")
    holds_a_dead_one = np.zeros(size, dtype=bool)
    for digit, factor in zip(digits, factors, strict=True):
        recent = np.zeros(factor)
        for codes in batches:
            recent = 0.99 * recent + np.bincount(digit[codes.numpy()], minlength=factor)
        holds_a_dead_one |= (recent < 0.1 * recent.mean())[digit]
    assert dead == pytest.approx(holds_a_dead_one.mean(), abs=1e-6)


def test_stuck_bits_of_a_codebook_too_large_to_count():
    x = torch.randn(300, 63, generator=torch.Generator().manual_seed(0))
    quantizer = LFQ(63).train()
    assert quantizer(x).metrics["dead"].tolist() == [0.0]
    for stuck in (1, 2, 3):
        x[:, 20 * stuck] = 1.0
        assert LFQ(63).train()(x).metrics["dead"].tolist() == [1 - 0.5**stuck]
    assert len(quantizer.usage.recent) == 126


def test_levels_that_nobody_reaches():
    quantizer = FSQ([8] * 21).train()  # 2^63 codes
    x = 3 * torch.rand(4000, 21, generator=torch.Generator().manual_seed(0)) - 1.5
    metrics = quantizer(x).metrics
    assert metrics["dead"].tolist() == [0.0]
    assert metrics["perplexity"].tolist() == pytest.approx([4000], rel=1e-5)
    x[:, 5] = x[:, 5].abs()  # the upper half of the levels is left, the middle included
    assert FSQ([8] * 21).train()(x).metrics["dead"].tolist() == [0.5]


def test_what_is_counted_is_no_state():
    quantizer = SimVQ(16, 4).train()
    names = list(quantizer.state_dict())
    quantizer(torch.randn(100, 4))
    assert quantizer.usage.recent.sum() == 100
    assert list(quantizer.state_dict()) == names == ["vectors", "transform.weight"]
