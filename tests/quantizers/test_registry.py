"""What every quantizer promises, run over the registry."""

import json

import pytest
import torch

from vqtok.quantizers import QUANTIZERS, build_quantizer

VECTOR = {"type": "vector", "codebook_size": 16, "dim": 6}
CONFIGS = {
    "vector": VECTOR,
    "vector-gradient": {**VECTOR, "learning": "gradient"},
    "vector-cosine": {**VECTOR, "cosine": True},
    "vector-cosine-gradient": {**VECTOR, "cosine": True, "learning": "gradient"},
    "vector-rotation": {**VECTOR, "gradient": "rotation"},
    "residual": {"type": "residual", "layers": [VECTOR, VECTOR, {**VECTOR, "codebook_size": 9}]},
    "residual-dropout": {"type": "residual", "layers": [VECTOR] * 3, "dropout": 0.7},
}


def latents(*shape, seed=0):
    return torch.randn(*shape, 6, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=CONFIGS)
def quantizer(request):
    torch.manual_seed(1)
    quantizer = build_quantizer(CONFIGS[request.param])
    quantizer.train()
    quantizer(latents(4, 50))
    return quantizer.eval()


def test_every_registered_type_is_covered():
    assert {config["type"] for config in CONFIGS.values()} == set(QUANTIZERS)


def test_shapes_dtypes_and_ranges(quantizer):
    result = quantizer(latents(3, 4, 5))
    Q = len(quantizer.codebook_sizes)
    assert result.quantized.shape == (3, 4, 5, 6)
    assert result.codes.shape == (3, 4, 5, Q)
    assert result.codes.dtype == torch.int64
    for index, size in enumerate(quantizer.codebook_sizes):
        assert result.codes[..., index].min() >= 0
        assert result.codes[..., index].max() < size
    assert all(loss.ndim == 0 and loss >= 0 for loss in result.losses.values())
    assert "commitment" in result.losses
    assert result.metrics["perplexity"].shape == result.metrics["usage"].shape == (Q,)


def test_embed_gives_the_quantized_latents_back(quantizer):
    result = quantizer(latents(3, 20))
    torch.testing.assert_close(quantizer.embed(result.codes), result.quantized, rtol=0, atol=0)


def test_codes_embed_to_themselves(quantizer):
    codes = quantizer(latents(3, 20)).codes[..., :1]
    embedded = quantizer.embed(codes)
    again = quantizer(embedded, num_codebooks=1)
    assert torch.equal(again.codes, codes)


def test_empty_input(quantizer):
    result = quantizer(latents(0, 3))
    assert result.codes.shape == (0, 3, len(quantizer.codebook_sizes))
    assert all(torch.isfinite(loss) for loss in result.losses.values())


def test_a_prefix_of_the_codebooks_gives_a_prefix_of_the_codes(quantizer):
    x = latents(5, 8)
    full = quantizer(x).codes
    for used in range(1, len(quantizer.codebook_sizes) + 1):
        assert torch.equal(quantizer(x, num_codebooks=used).codes, full[..., :used])
    for wrong in (0, -1, len(quantizer.codebook_sizes) + 1):
        with pytest.raises(ValueError, match="num_codebooks must be in"):
            quantizer(x, num_codebooks=wrong)


def test_eval_changes_no_state(quantizer):
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer(latents(40, 9, seed=3))
    for name, value in quantizer.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_eval_before_any_training_changes_no_state():
    for config in CONFIGS.values():
        quantizer = build_quantizer(config).eval()
        before = {name: value.clone() for name, value in quantizer.state_dict().items()}
        quantizer(latents(40))
        for name, value in quantizer.state_dict().items():
            assert torch.equal(value, before[name]), name


def test_codes_do_not_depend_on_autocast(quantizer):
    x = latents(64, 10)
    with torch.autocast("cpu", torch.bfloat16):
        inside = quantizer(x)
    assert torch.equal(inside.codes, quantizer(x).codes)
    assert inside.quantized.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_quantized_as_their_values(quantizer, dtype):
    x = latents(64).to(dtype)
    result = quantizer(x)
    assert result.quantized.dtype == dtype
    assert torch.equal(result.codes, quantizer(x.float()).codes)


def test_masked_positions_change_nothing():
    """Corrupting the padding leaves the codes elsewhere, losses, metrics and state the same."""
    mask = torch.rand(6, 10, generator=torch.Generator().manual_seed(5)) < 0.6
    clean, corrupted = latents(6, 10), latents(6, 10)
    corrupted[~mask] = 1e3 * torch.randn(int((~mask).sum()), 6)
    for config in CONFIGS.values():
        outcomes = []
        for x in (clean, corrupted):
            torch.manual_seed(2)
            quantizer = build_quantizer(config).train()
            for step in range(3):
                torch.manual_seed(step)
                result = quantizer(x, mask)
            outcomes.append((result, quantizer.state_dict()))
        (first, state), (second, other) = outcomes
        assert torch.equal(first.codes[mask], second.codes[mask])
        for name in first.losses:
            assert torch.equal(first.losses[name], second.losses[name]), (config, name)
        for name in first.metrics:
            assert torch.equal(first.metrics[name], second.metrics[name]), (config, name)
        for name in state:
            assert torch.equal(state[name], other[name]), (config, name)


def test_an_all_masked_batch_is_harmless():
    for config in CONFIGS.values():
        quantizer = build_quantizer(config).train()
        before = {name: value.clone() for name, value in quantizer.state_dict().items()}
        result = quantizer(latents(2, 3), torch.zeros(2, 3, dtype=torch.bool))
        assert all(loss == 0 for loss in result.losses.values())
        for name, value in quantizer.state_dict().items():
            if "embeddings" in name:
                torch.testing.assert_close(value, before[name])


def test_config_and_state_round_trip(quantizer):
    copy = build_quantizer(json.loads(json.dumps(quantizer.config)))
    copy.load_state_dict(quantizer.state_dict(), strict=True)
    x = latents(30, seed=8)
    copy.eval()
    assert torch.equal(copy(x).codes, quantizer(x).codes)
    # A loaded quantizer is initialised: training goes on from its codebook, not from k-means.
    before = copy.embed(copy(x).codes)
    copy.train()
    copy(x)
    after = copy.embed(copy.eval()(x).codes)
    assert (after - before).abs().max() < 1.0


def test_gradients_reach_the_latents(quantizer):
    quantizer.train()
    x = latents(4, 8).requires_grad_(True)
    result = quantizer(x)
    (result.quantized.square().sum() + sum(result.losses.values())).backward()
    assert x.grad.isfinite().all()
    assert (x.grad != 0).any()


@pytest.mark.parametrize(
    ("x", "mask", "message"),
    [
        (torch.zeros(3, 7), None, "latents have dim 7, codebook has dim 6"),
        (torch.zeros(3, 6, dtype=torch.int64), None, "floating point"),
        (torch.zeros(3, 6), torch.ones(4, dtype=torch.bool), r"mask must be bool \(3,\)"),
        (torch.zeros(3, 6), torch.ones(3), "mask must be bool"),
    ],
)
def test_wrong_latents_are_named(quantizer, x, mask, message):
    with pytest.raises(ValueError, match=message):
        quantizer(x, mask)


def test_wrong_codes_are_named(quantizer):
    Q = len(quantizer.codebook_sizes)
    for wrong in (
        torch.full((2, Q), 99),
        torch.full((2, Q), -1),
        torch.zeros(2, Q + 1, dtype=torch.int64),
        torch.zeros(2, 0, dtype=torch.int64),
        torch.zeros(2, Q),
    ):
        with pytest.raises(ValueError, match="code"):
            quantizer.embed(wrong)


def test_unknown_type_is_named():
    with pytest.raises(ValueError, match="unknown quantizer type 'nope'"):
        build_quantizer({"type": "nope"})
