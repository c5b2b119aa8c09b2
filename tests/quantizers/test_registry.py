"""What every quantizer promises, run over the registry."""

import json

import pytest
import torch
import torch.nn.functional as F

from vqtok.quantizers import (
    QUANTIZERS,
    BeamResidualQuantizer,
    GroupedQuantizer,
    MultiRateQuantizer,
    MultiScaleQuantizer,
    ProjectedQuantizer,
    PyramidQuantizer,
    ResidualQuantizer,
    SquashedQuantizer,
    SummedQuantizer,
    build_quantizer,
    residual_fsq,
)
from vqtok.quantizers.base import mask_of_lengths

VECTOR = {"type": "vector", "codebook_size": 16, "dim": 6}
GRADIENT = {**VECTOR, "learning": "gradient"}
BITS = {"type": "bsq", "bits": 6}
FSQ3 = {"type": "fsq", "levels": [5, 4, 3]}
CONFIGS = {
    "vector": VECTOR,
    "vector-gradient": GRADIENT,
    "vector-cosine": {**VECTOR, "cosine": True},
    "vector-cosine-gradient": {**GRADIENT, "cosine": True},
    "vector-rotation": {**VECTOR, "gradient": "rotation"},
    "vector-penalties": {**GRADIENT, "penalties": ["orthogonal", "diversity"]},
    "simvq": {"type": "simvq", "codebook_size": 16, "dim": 6},
    "ibq": {"type": "ibq", "codebook_size": 16, "dim": 6},
    "ibq-cosine": {"type": "ibq", "codebook_size": 16, "dim": 6, "cosine": True},
    "gumbel": {"type": "gumbel", "codebook_size": 16, "dim": 6},
    "random_projection": {
        "type": "random_projection",
        "codebook_size": 16,
        "dim": 6,
        "codebook_dim": 4,
    },
    "fixed": {"type": "fixed", "codebook_size": 16, "dim": 6},
    "fixed-angle": {"type": "fixed", "codebook_size": 16, "dim": 6, "compare": "angle"},
    "fixed-directions": {"type": "fixed", "codebook_size": 16, "dim": 6, "output": "directions"},
    "fsq": {"type": "fsq", "levels": [8, 5, 2, 3, 4, 7]},
    "ifsq": {"type": "ifsq", "levels": [8, 5, 2, 3, 4, 7]},
    "clamped_fsq": {"type": "clamped_fsq", "levels": [8, 5, 2, 3, 4, 7], "scale": [1.5] * 6},
    "wide_fsq": {"type": "wide_fsq", "levels": [8, 5, 3, 3, 4, 7]},
    "symmetric_fsq": {"type": "symmetric_fsq", "levels": [8, 5, 2, 3, 4, 7]},
    "lfq": {"type": "lfq", "bits": 6},
    "bsq": {**BITS, "group_bits": 4},
    "projected": {"type": "projected", "dim": 6, "layer": {**VECTOR, "dim": 2}},
    "projected-fsq": {"type": "projected", "dim": 6, "layer": FSQ3},
    "grouped": {"type": "grouped", "layers": [FSQ3, {**VECTOR, "dim": 2}, {**BITS, "bits": 1}]},
    "grouped-residual": {
        "type": "grouped",
        "layers": [{"type": "residual", "layers": [{**VECTOR, "dim": 3}] * 2}, FSQ3],
    },
    "residual": {"type": "residual", "layers": [VECTOR, VECTOR, {**VECTOR, "codebook_size": 9}]},
    "residual-dropout": {"type": "residual", "layers": [VECTOR] * 3, "dropout": 0.7},
    "residual-mixed": {"type": "residual", "layers": [GRADIENT, BITS]},
    "residual-fsq": residual_fsq([5, 4, 3, 5, 4, 3], 3, dropout=0.3).config,
    "residual-projected": {
        "type": "residual",
        "layers": [{"type": "projected", "dim": 6, "layer": {**VECTOR, "dim": 2}}] * 3,
        "dropout": 0.3,
    },
    "shared_residual": {"type": "shared_residual", "layer": VECTOR, "num_codebooks": 3},
    "beam_residual": {"type": "beam_residual", "layers": [VECTOR] * 3, "beam": 4},
    "summed": {
        "type": "summed",
        "layers": [
            {"type": "projected", "dim": 6, "layer": {**VECTOR, "dim": 2}},
            {"type": "residual", "layers": [VECTOR] * 2},
        ],
    },
    "summed-plain": {"type": "summed", "layers": [VECTOR, VECTOR]},
    "multirate": {
        "type": "multirate",
        "layers": [{**VECTOR, "dim": 3}] * 2,
        "strides": [2, 1],
        "frame": 2,
    },
    "multirate-projected": {
        "type": "multirate",
        "layers": [{"type": "projected", "dim": 3, "layer": {**VECTOR, "dim": 2}}] * 2,
        "strides": [2, 1],
        "frame": 2,
    },
    "squashed": {
        "type": "squashed",
        "limit": [1.5] * 6,
        "layer": {"type": "clamped_fsq", "levels": [5, 4, 3, 5, 4, 3], "scale": [1.2] * 6},
    },
    "pyramid": {
        "type": "pyramid",
        "layer": {"type": "multiscale", "layer": {**VECTOR, "dim": 6}, "scales": [1]},
    },
    "multiscale": {"type": "multiscale", "layer": VECTOR, "scales": [1, 2, 4]},
    "multiscale-bits": {"type": "multiscale", "layer": BITS, "scales": [1, 3, 4]},
}


def latents(samples, seed=0):
    """[samples, 4, 4, 6]; nobody minds the grid but the multi-scale quantizer."""
    return torch.randn(samples, 4, 4, 6, generator=torch.Generator().manual_seed(seed))


def grids(samples, seed=5):
    """A mask of about 60 %."""
    return torch.rand(samples, 4, 4, generator=torch.Generator().manual_seed(seed)) < 0.6


def trained(config):
    torch.manual_seed(1)
    quantizer = build_quantizer(config)
    quantizer.train()
    quantizer(latents(20))
    return quantizer.eval()


def state_of(quantizer):
    return {name: value.clone() for name, value in quantizer.state_dict().items()}


def assert_state_is(quantizer, before):
    for name, value in quantizer.state_dict().items():
        assert torch.equal(value, before[name]), name


def names_except(*kinds):
    """The configs whose quantizers are of none of these classes."""
    return [
        name
        for name, config in CONFIGS.items()
        if not issubclass(QUANTIZERS[config["type"]], kinds)
    ]


@pytest.fixture(params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


@pytest.fixture
def quantizer(config):
    return trained(config)


def test_every_registered_type_is_covered():
    assert {config["type"] for config in CONFIGS.values()} == set(QUANTIZERS)


def test_shapes_dtypes_and_ranges(quantizer):
    result = quantizer(latents(3))
    Q = len(quantizer.codebook_sizes)
    assert result.quantized.shape == (3, 4, 4, 6)
    if isinstance(quantizer, MultiScaleQuantizer):
        assert result.codes.shape == (3, sum(side**2 for side in quantizer.scales), 1)
    else:
        assert result.codes.shape == (3, 4, 4, Q)
    assert result.codes.dtype == torch.int64
    for index, size in enumerate(quantizer.codebook_sizes):
        assert result.codes[..., index].min() >= 0
        assert result.codes[..., index].max() < size
    assert all(loss.ndim == 0 and loss >= 0 for loss in result.losses.values())
    assert set(result.metrics) == {"perplexity", "usage", "dead"}
    for training in (False, True):
        for name, value in quantizer.train(training)(latents(3)).metrics.items():
            assert value.shape == (Q,)
            assert not value.requires_grad
            assert (value >= (name == "perplexity")).all()
            assert name == "perplexity" or (value <= 1).all()


def test_losses_in_training_are_not_negative(config):
    torch.manual_seed(1)
    quantizer = build_quantizer(config).train()
    for seed in range(3):
        result = quantizer(latents(5, seed))
        assert all(loss.ndim == 0 and loss >= 0 for loss in result.losses.values())
        assert all(loss.dtype == torch.float32 for loss in result.losses.values())


@pytest.mark.parametrize("name", names_except(MultiScaleQuantizer))  # it masks codes by cells
def test_metrics_count_the_codes(name):
    quantizer = trained(CONFIGS[name])
    mask = grids(5)
    result = quantizer(latents(5), mask)
    for index, size in enumerate(quantizer.codebook_sizes):
        counts = result.codes[..., index][mask].unique(return_counts=True)[1].double()
        share = counts / counts.sum()
        perplexity = (-(share * share.log()).sum()).exp()
        torch.testing.assert_close(result.metrics["perplexity"][index], perplexity.float())
        assert float(result.metrics["usage"][index]) == pytest.approx(len(counts) / size)


def test_embed_gives_the_quantized_latents_back(quantizer):
    result = quantizer(latents(3))
    torch.testing.assert_close(quantizer.embed(result.codes), result.quantized, rtol=0, atol=0)


@pytest.mark.parametrize(
    "name",
    names_except(
        *(ResidualQuantizer, MultiScaleQuantizer, SummedQuantizer, MultiRateQuantizer),
        PyramidQuantizer,
    ),
)
def test_codes_embed_to_themselves(name):
    """Codes of every codebook; sums of codebooks have no exact inverse."""
    quantizer = trained(CONFIGS[name])
    sums = (ResidualQuantizer, MultiScaleQuantizer)
    if any(isinstance(module, sums) for module in quantizer.modules()):
        quantizer = quantizer.layers[1]
    generator = torch.Generator().manual_seed(0)
    codes = torch.stack(
        [torch.randint(size, (500,), generator=generator) for size in quantizer.codebook_sizes], -1
    )
    assert torch.equal(quantizer.codes_of(quantizer.embed(codes)), codes)


def test_empty_input(quantizer):
    for training in (False, True):
        result = quantizer.train(training)(latents(0))
        assert result.codes.shape[0] == 0
        assert result.codes.shape[-1] == len(quantizer.codebook_sizes)
        assert result.quantized.shape == (0, 4, 4, 6)
        assert all(torch.isfinite(loss) for loss in result.losses.values())


def test_a_prefix_of_the_codebooks_gives_a_prefix_of_the_codes(quantizer):
    x = latents(5)
    full = quantizer(x).codes
    for used in range(1, len(quantizer.codebook_sizes) + 1):
        result = quantizer(x, num_codebooks=used)
        if not isinstance(quantizer, BeamResidualQuantizer):
            assert torch.equal(result.codes, full[..., :used])
        assert torch.equal(quantizer.embed(result.codes), result.quantized)
    for wrong in (0, -1, len(quantizer.codebook_sizes) + 1):
        with pytest.raises(ValueError, match="num_codebooks must be in"):
            quantizer(x, num_codebooks=wrong)


def test_codes_do_not_depend_on_the_batch(quantizer):
    x = latents(9)
    together = quantizer(x).codes
    for index in range(9):
        assert torch.equal(quantizer(x[index : index + 1]).codes[0], together[index])


def test_eval_changes_no_state(quantizer):
    before = state_of(quantizer)
    quantizer(latents(24, seed=3))
    assert_state_is(quantizer, before)


def test_freezing_changes_no_state(config):
    quantizer = build_quantizer(config).train().requires_grad_(False)
    before = state_of(quantizer)
    quantizer(latents(20))
    assert_state_is(quantizer, before)
    quantizer.requires_grad_(True)
    quantizer(latents(20))
    if any("initialized" in name for name in before):
        assert any(not torch.equal(quantizer.state_dict()[name], before[name]) for name in before)


@pytest.mark.parametrize("name", ["vector", "vector-gradient", "grouped-residual", "multiscale"])
@pytest.mark.parametrize("one_by_one", [False, True])
def test_freezing_a_parent_changes_no_state(name, one_by_one):
    quantizer = build_quantizer(CONFIGS[name])
    parent = torch.nn.ModuleDict({"a": torch.nn.Linear(6, 6), "b": torch.nn.Sequential(quantizer)})
    parent.train()
    if one_by_one:
        for parameter in parent.parameters():
            parameter.requires_grad = False
    else:
        parent.requires_grad_(False)
    before = state_of(quantizer)
    for _ in range(2):
        quantizer(latents(20))
    assert_state_is(quantizer, before)
    parent.requires_grad_(True)
    quantizer(latents(20))
    assert any(not torch.equal(value, before[n]) for n, value in quantizer.state_dict().items())


def test_what_freezes_is_not_saved_and_takes_no_part_in_optimisation(config):
    quantizer = build_quantizer(config).train()
    empty = [name for name, value in quantizer.named_parameters() if value.numel() == 0]
    assert not [name for name in empty if name in quantizer.state_dict()]
    if not list(quantizer.parameters()):
        return
    optimizer = torch.optim.AdamW(quantizer.parameters())
    before = state_of(quantizer.eval())
    x = latents(3).requires_grad_(True)
    result = quantizer.train()(x)
    learned = {name for name, value in quantizer.named_parameters() if value.numel()}
    moved = state_of(quantizer)
    (result.quantized.sum() + sum(result.losses.values())).backward()
    optimizer.step()
    for name, value in quantizer.state_dict().items():
        if name not in learned:  # EMA buffers move in the forward pass alone
            assert torch.equal(value, moved[name]), name
    assert before.keys() == moved.keys()


def test_eval_before_any_training_changes_no_state(config):
    quantizer = build_quantizer(config).eval()
    before = state_of(quantizer)
    quantizer(latents(10))
    assert_state_is(quantizer, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_codes_do_not_depend_on_autocast(quantizer, dtype):
    x = latents(20)
    with torch.autocast("cpu", dtype):
        inside = quantizer(x)
    assert torch.equal(inside.codes, quantizer(x).codes)
    assert inside.quantized.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_quantized_as_their_values(quantizer, dtype):
    x = latents(4).to(dtype)
    result = quantizer(x)
    assert result.quantized.dtype == dtype
    assert torch.equal(result.codes, quantizer(x.float()).codes)


def test_converting_the_model_keeps_the_statistics(config):
    outcomes = []
    for convert in (lambda module: module, lambda module: torch.nn.Sequential(module).bfloat16()):
        torch.manual_seed(1)
        quantizer = build_quantizer(config).train()
        convert(quantizer)
        for seed in range(3):
            torch.manual_seed(seed)
            quantizer(latents(8, seed))
        outcomes.append(state_of(quantizer))
    for name, value in outcomes[0].items():
        assert outcomes[1][name].dtype == value.dtype
        assert torch.equal(outcomes[1][name], value), name


def test_masked_positions_change_nothing(config):
    """Corrupting the padding leaves codes elsewhere, losses, metrics, state, gradients alone."""
    mask = grids(6)
    clean, corrupted, bad = latents(6), latents(6), latents(6)
    corrupted[~mask] = 1e3 * torch.randn(int((~mask).sum()), 6)
    bad[~mask] = torch.nan
    outcomes = []
    for x in (clean, corrupted, bad):
        torch.manual_seed(2)
        quantizer = build_quantizer(config).train()
        for step in range(3):
            torch.manual_seed(step)
            x = x.detach().requires_grad_(True)
            result = quantizer(x, mask)
        (result.quantized.sum() + sum(result.losses.values())).backward()
        outcomes.append((result, quantizer.state_dict(), x.grad, quantizer.eval()(x, mask)))
        assert (x.grad[~mask] == 0).all()
    first, state, gradient, evaluated = outcomes[0]
    for second, other, other_gradient, other_evaluated in outcomes[1:]:
        assert torch.equal(first.codes, second.codes)
        assert torch.equal(evaluated.codes, other_evaluated.codes)
        assert torch.equal(gradient, other_gradient)
        for name in first.losses:
            assert torch.equal(first.losses[name], second.losses[name]), name
        for name in first.metrics:
            assert torch.equal(first.metrics[name], second.metrics[name]), name
        for name in state:
            assert torch.equal(state[name], other[name]), name


@pytest.mark.parametrize("training", [False, True])
def test_masked_positions_have_the_code_of_zeros(quantizer, training):
    """Of every codebook by itself, whatever else is in the batch, and they embed like any code."""
    x, mask = latents(6), grids(6)
    quantizer.train(training).requires_grad_(False)
    result = quantizer(x, mask)
    if isinstance(quantizer, MultiScaleQuantizer):
        counts = [F.adaptive_max_pool2d(mask.float(), side).flatten(1) for side in quantizer.scales]
        mask, parts = torch.cat(counts, 1) > 0, [(quantizer.layer, 0)]
    else:
        parts = [(part, q) for q, part in enumerate(codebooks(quantizer))]
    assert not mask.all()
    for part, q in parts:
        zero = part.eval()(torch.zeros(1, part.dim)).codes[0, 0]
        assert (result.codes[..., q][~mask] == zero).all()
    if not (training and getattr(quantizer, "dropout", 0)):
        torch.testing.assert_close(quantizer.embed(result.codes), result.quantized)


def codebooks(quantizer):
    """The quantizer of each codebook."""
    if isinstance(quantizer, ResidualQuantizer):
        return [part for layer in quantizer._quantizers() for part in codebooks(layer)]
    if isinstance(quantizer, (GroupedQuantizer, SummedQuantizer)):
        return [part for layer in quantizer.layers for part in codebooks(layer)]
    if isinstance(quantizer, MultiRateQuantizer):
        return [
            codebooks(part)[0] for part, _, share in quantizer._levels(99) for _ in range(share)
        ]
    if isinstance(quantizer, PyramidQuantizer):
        return codebooks(quantizer.layer.layer) * len(quantizer.codebook_sizes)
    if isinstance(quantizer, (ProjectedQuantizer, SquashedQuantizer)):
        return codebooks(quantizer.layer)
    return [quantizer]


def test_learns_from_output_says_where_gradients_go(config):
    quantizer = build_quantizer(config).train()
    x = latents(8).requires_grad_(True)
    quantizer(x)
    quantizer(x).quantized.square().sum().backward()
    reached = [name for name, p in quantizer.named_parameters() if p.grad is not None and p.numel()]
    reached = [name for name in reached if (quantizer.get_parameter(name).grad != 0).any()]
    assert bool(reached) == quantizer.learns_from_output, reached


def test_losses_are_those_of_the_positions_that_count(config):
    """Masking the second half of the samples is leaving them out."""
    x = latents(8)
    mask = torch.zeros(8, 4, 4, dtype=torch.bool)
    mask[:4] = True
    masked, alone = trained(config), trained(config)
    first, second = masked(x, mask), alone(x[:4])
    assert torch.equal(first.codes[:4], second.codes)
    for name in second.losses:
        torch.testing.assert_close(first.losses[name], second.losses[name])
    for name in second.metrics:
        torch.testing.assert_close(first.metrics[name], second.metrics[name])


def test_an_all_masked_batch_is_harmless(config):
    quantizer = build_quantizer(config).train()
    before = state_of(quantizer)
    x = torch.full((2, 4, 4, 6), torch.nan, requires_grad=True)
    result = quantizer(x, torch.zeros(2, 4, 4, dtype=torch.bool))
    positions = {key: loss for key, loss in result.losses.items() if key != "orthogonal"}
    assert all(loss == 0 for loss in positions.values())
    for name, value in quantizer.state_dict().items():
        if "embeddings" in name:
            torch.testing.assert_close(value, before[name])
    (result.quantized.sum() + sum(result.losses.values())).backward()
    assert (x.grad == 0).all()
    for parameter in quantizer.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


def test_config_and_state_round_trip(quantizer):
    copy = build_quantizer(json.loads(json.dumps(quantizer.config)))
    assert copy.config == quantizer.config
    copy.load_state_dict(quantizer.state_dict(), strict=True)
    x = latents(8, seed=8)
    copy.eval()
    assert torch.equal(copy(x).codes, quantizer(x).codes)
    # A loaded quantizer trains on from where the other was, k-means and all.
    for one in (copy, quantizer):
        torch.manual_seed(4)
        one.train()(x)
    assert_state_is(copy, quantizer.state_dict())


def test_gradients_reach_the_latents_and_every_parameter(quantizer):
    quantizer.train()
    x = latents(8).requires_grad_(True)
    result = quantizer(x)
    (result.quantized.square().sum() + sum(result.losses.values())).backward()
    assert x.grad.isfinite().all()
    assert (x.grad != 0).any()
    for name, parameter in quantizer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_eval_refuses_what_is_not_finite(quantizer, value):
    x = latents(2)
    x[1, 2, 3, 4] = value
    with pytest.raises(ValueError, match="NaN or Inf"):
        quantizer(x)
    # In training the loss tells; codes stay in range.
    codes = quantizer.train()(x).codes
    for index, size in enumerate(quantizer.codebook_sizes):
        assert codes[..., index].min() >= 0
        assert codes[..., index].max() < size


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_training_on_what_is_not_finite_leaves_the_state_sound(config, value):
    """In the first batch (k-means) and in later ones (statistics, revival)."""
    torch.manual_seed(1)
    quantizer = build_quantizer(config).train()
    for seed in range(3):
        x = latents(8, seed)
        x[seed::3, 1, 2, seed] = value
        result = quantizer(x)
        for index, size in enumerate(quantizer.codebook_sizes):
            assert result.codes[..., index].min() >= 0
            assert result.codes[..., index].max() < size
    assert all(tensor.isfinite().all() for tensor in quantizer.state_dict().values())
    assert quantizer.eval()(latents(5)).quantized.isfinite().all()


@pytest.mark.parametrize("name", [name for name in CONFIGS if name.startswith("vector")])
def test_rows_that_are_not_finite_teach_what_masked_rows_teach(name):
    states = []
    for masked in (False, True):
        torch.manual_seed(1)
        quantizer = build_quantizer(CONFIGS[name]).train()
        for seed in range(3):
            x, mask = latents(8, seed), torch.ones(8, 4, 4, dtype=torch.bool)
            x[3, 1, 2, 5] = x[6, 0, 0, 0] = torch.nan
            mask[3, 1, 2] = mask[6, 0, 0] = False
            torch.manual_seed(seed)
            result = quantizer(x, mask if masked else None)
            assert bool(result.losses["commitment"].isnan()) != masked
        states.append(quantizer.state_dict())
    for key, state in states[0].items():
        assert torch.equal(state, states[1][key]), key


def test_lengths_are_a_mask(config):
    lengths = torch.tensor([4, 0, 2, 1, 3])
    mask = torch.arange(4)[None, :, None].expand(5, 4, 4) < lengths[:, None, None]
    outcomes = []
    for arguments in ({"lengths": lengths}, {"mask": mask}):
        torch.manual_seed(1)
        quantizer = build_quantizer(config).train()
        outcomes.append((quantizer(latents(5), **arguments), quantizer.state_dict()))
    (first, state), (second, other) = outcomes
    assert torch.equal(first.codes, second.codes)
    assert all(torch.equal(first.losses[name], second.losses[name]) for name in first.losses)
    assert all(torch.equal(state[name], other[name]) for name in state)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.uint16, torch.int32])
def test_lengths_of_small_types_may_be_of_long_latents(dtype):
    mask = mask_of_lengths(torch.tensor([50, 0], dtype=dtype), (2, 300, 6))
    assert mask.sum(1).tolist() == [50, 0]


def test_wrong_lengths_are_named():
    quantizer = build_quantizer(VECTOR)
    for lengths in (
        torch.tensor([1, 2]),
        torch.tensor([1.0] * 5),
        torch.tensor([1j] * 5),
        torch.ones(5, dtype=torch.bool),
        torch.zeros(5, 1).long(),
    ):
        with pytest.raises(ValueError, match="lengths must be integers"):
            quantizer(latents(5), lengths=lengths)
    for wrong in (-1, 5):
        lengths = torch.tensor([4, 0, 1, wrong, wrong])
        with pytest.raises(ValueError, match=rf"in 0..4 for .*, but sample 3 has {wrong}"):
            quantizer(latents(5), lengths=lengths)
    with pytest.raises(ValueError, match="a mask or lengths, not both"):
        quantizer(latents(5), grids(5), lengths=torch.ones(5, dtype=torch.int64))
    with pytest.raises(ValueError, match="lengths must be integers"):
        quantizer(torch.zeros(5, 6), lengths=torch.ones(5, dtype=torch.int64))


@pytest.mark.parametrize(
    ("x", "mask", "message"),
    [
        (torch.zeros(3, 4, 4, 7), None, "latents have dim 7, codebook has dim 6"),
        (torch.zeros(3, 4, 4, 6, dtype=torch.int64), None, "floating point"),
        (torch.zeros(1, 4, 4, 6), torch.ones(4, dtype=torch.bool), r"mask must be bool \(1, 4, 4"),
        (torch.zeros(3, 4, 4, 6), torch.ones(3, 4, 4), "mask must be bool"),
    ],
)
def test_wrong_latents_are_named(x, mask, message):
    for config in CONFIGS.values():
        with pytest.raises(ValueError, match=message):
            build_quantizer(config)(x, mask)


def test_wrong_codes_are_named(quantizer):
    Q = len(quantizer.codebook_sizes)
    for wrong in (
        torch.full((2, Q), max(quantizer.codebook_sizes)),
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
