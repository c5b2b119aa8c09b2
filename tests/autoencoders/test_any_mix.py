"""Any bottleneck x any stack x any corruption: builds, learns, saves, loads, scores identically."""

import pytest
import torch

from vqtok.autoencoders import (
    BOTTLENECKS,
    CORRUPTIONS,
    Autoencoder,
    build_autoencoder,
)
from vqtok.nn import DECODERS, ENCODERS
from vqtok.quantizers import QUANTIZERS

DIM = 4
VECTOR = {"type": "vector", "codebook_size": 8, "dim": DIM}
SQUEEZES = {
    "identity": {"dim": DIM},
    "top_k": {"dim": DIM, "k": 2},
    "batch_top_k": {"dim": DIM, "k": 2},
    "jump_relu": {"dim": DIM},
    "gaussian": {"dim": DIM, "out_dim": DIM},
    "vector": {"codebook_size": 8, "dim": DIM},
    "simvq": {"codebook_size": 8, "dim": DIM},
    "ibq": {"codebook_size": 8, "dim": DIM},
    "gumbel": {"codebook_size": 8, "dim": DIM},
    "random_projection": {"codebook_size": 8, "dim": DIM, "codebook_dim": 3},
    "fixed": {"codebook_size": 16, "dim": DIM},
    "fsq": {"levels": [5] * DIM},
    "ifsq": {"levels": [5] * DIM},
    "clamped_fsq": {"levels": [5] * DIM, "scale": [2.0] * DIM},
    "lfq": {"bits": DIM},
    "bsq": {"bits": DIM},
    "projected": {"layer": {"type": "fsq", "levels": [5, 5]}, "dim": DIM},
    "grouped": {"layers": [{"type": "fsq", "levels": [5, 5]}] * 2},
    "residual": {"layers": [VECTOR, VECTOR]},
    "shared_residual": {"layer": VECTOR, "num_codebooks": 2},
    "beam_residual": {"layers": [VECTOR, VECTOR], "beam": 2},
    "summed": {"layers": [VECTOR, VECTOR]},
    "multirate": {"layers": [{**VECTOR, "dim": 2}] * 2, "strides": [2, 1], "frame": 2},
    "wide_fsq": {"levels": [5] * DIM},
    "symmetric_fsq": {"levels": [5] * DIM},
    "squashed": {
        "layer": {"type": "clamped_fsq", "levels": [5] * DIM, "scale": [1.0] * DIM},
        "limit": [1.5] * DIM,
    },
    "pyramid": {"layer": {"type": "multiscale", "layer": {**VECTOR, "dim": 1}, "scales": [1, 2]}},
    "multiscale": {"layer": VECTOR, "scales": [1, 4]},
}
IMAGE = [1, 7, 7]
STACKS = {
    "mlp": (
        {"type": "mlp", "shape": [9], "hidden": [12], "dim": DIM, "positions": 3},
        {"type": "mlp", "shape": [9], "hidden": [12], "dim": DIM, "positions": 3},
    ),
    "mlp_tied": (
        {"type": "mlp", "shape": [9], "hidden": [12], "dim": DIM},
        {"type": "mlp_tied", "shape": [9], "hidden": [12], "dim": DIM},
    ),
    "dictionary": (
        {"type": "dictionary", "shape": [9], "dim": DIM},
        {"type": "dictionary", "shape": [9], "dim": DIM},
    ),
    "image": (
        {"type": "image", "shape": IMAGE, "channels": [8], "dim": DIM},
        {"type": "image", "shape": IMAGE, "channels": [8], "dim": DIM},
    ),
    "grid": (
        {"type": "grid", "shape": IMAGE, "channels": [8], "dim": DIM},
        {"type": "grid", "shape": IMAGE, "channels": [8], "dim": DIM},
    ),
    "rnn": (
        {"type": "rnn", "dim": DIM, "num_latents": 2, "channels": 2, "width": 8},
        {"type": "rnn", "dim": DIM, "num_latents": 2, "channels": 2, "width": 8},
    ),
    "transformer": (
        {"type": "transformer", "dim": DIM, "num_latents": 2, "channels": 2, "width": 8},
        {"type": "transformer", "dim": DIM, "num_latents": 2, "channels": 2, "width": 8},
    ),
    "parallel": (
        {"type": "rnn", "dim": DIM, "num_latents": 2, "channels": 2, "width": 8},
        {"type": "parallel", "dim": DIM, "num_latents": 2, "channels": 2, "width": 8},
    ),
    "conv1d": (
        {"type": "conv1d", "dim": DIM, "num_latents": 2, "channels": 2, "width": 8},
        {"type": "conv1d", "dim": DIM, "num_latents": 2, "channels": 2, "width": 8},
    ),
}
SEQUENCES = ("rnn", "transformer", "parallel", "conv1d")
DAMAGES = [
    None,
    {"type": "gaussian", "scale": 0.2},
    {"type": "masking", "fraction": 0.1},
    {"type": "salt_and_pepper", "fraction": 0.1},
]
# Those of photos and sounds have their own tests, with quantizers.
ELSEWHERE = {
    "conv",
    "spectral",
    "waveform",
    "vqgan",
    "seanet",
    "seanet_segments",
    "mimi",
    "snac",
    "emu3",
    "maskgit",
    "magvit",
    "tiled",
    "unit",
    "absent",
}
# A grid of latents is what it codes.
NEEDS_GRID = {"multiscale"}
PAIRS = [
    (squeeze, stack)
    for squeeze in SQUEEZES
    for stack in STACKS
    if stack == "grid" or squeeze not in NEEDS_GRID
]


def config(squeeze, stack, damage):
    encoder, decoder = STACKS[stack]
    key = "quantizer" if squeeze in QUANTIZERS else "bottleneck"
    scaling = {"image": [1, 1, 1], "grid": [1, 1, 1], **{name: [2] for name in SEQUENCES}}
    return {
        "encoder": encoder,
        key: {"type": squeeze, **SQUEEZES[squeeze]},
        "decoder": decoder,
        "likelihood": {"type": "gaussian", "scale": 0.5},
        "loss_weights": {"kl": 0.05, "commitment": 0.1, "l0": 0.01, "entropy": 0.01},
        "corruption": damage,
        "scaling": {"type": "standardize", "shape": scaling.get(stack, [9])},
    }


def data(stack, count=24):
    generator = torch.Generator().manual_seed(0)
    shapes = {"image": IMAGE, "grid": IMAGE, **{name: [4, 2] for name in SEQUENCES}}
    shape = shapes.get(stack, [9])
    factors = torch.randn(count, 3, generator=generator)
    mixing = torch.randn(3, *shape, generator=generator)
    return torch.einsum("bf,f...->b...", factors, mixing)


def number(loss):
    return float(loss.detach())


def test_every_part_is_in_the_mix():
    assert set(SQUEEZES) == set(BOTTLENECKS) | set(QUANTIZERS)
    encoders = {encoder["type"] for encoder, _ in STACKS.values()}
    decoders = {decoder["type"] for _, decoder in STACKS.values()}
    assert encoders | ELSEWHERE == set(ENCODERS) | ELSEWHERE
    assert decoders | ELSEWHERE == set(DECODERS) | ELSEWHERE
    assert {damage["type"] for damage in DAMAGES if damage} == set(CORRUPTIONS)


@pytest.mark.parametrize("stack", STACKS)
def test_all_combinations_build_and_run(stack):
    x = data(stack, 4)
    for squeeze in (squeeze for squeeze, other in PAIRS if other == stack):
        for damage in DAMAGES:
            model = build_autoencoder(config(squeeze, stack, damage)).train()
            result = model(x, step=0)
            assert bool(model.total_loss(result.losses, 0).isfinite()), (squeeze, damage)
            assert build_autoencoder(model.config).config == model.config


@pytest.mark.parametrize("kind", ["contractive", "contractive_hutchinson"])
@pytest.mark.parametrize("stack", STACKS)
def test_every_stack_can_be_contractive(stack, kind):
    torch.manual_seed(0)
    parts = config("identity", stack, None)
    model = build_autoencoder({**parts, "penalties": [{"type": kind}]}).train()
    result = model(data(stack), step=0)
    assert number(result.losses["contractive"]) > 0
    result.losses["contractive"].backward()
    first = next(model.encoder.parameters())
    assert bool(first.grad.isfinite().all())
    assert bool((first.grad != 0).any())


def test_symbols_have_no_jacobian():
    sizes = {"type": "rnn", "dim": DIM, "num_latents": 2, "symbols": 5, "width": 8}
    parts = {
        "encoder": sizes,
        "bottleneck": {"type": "identity", "dim": DIM},
        "decoder": sizes,
        "likelihood": {"type": "categorical"},
        "loss_weights": {},
        "penalties": [{"type": "contractive"}],
    }
    model = build_autoencoder(parts).train()
    with pytest.raises(ValueError, match="a Jacobian is of real values"):
        model(torch.zeros(2, 3, dtype=torch.int64))


@pytest.mark.parametrize(("squeeze", "stack"), PAIRS)
def test_a_mix_learns_and_survives_saving(squeeze, stack, tmp_path):
    torch.manual_seed(0)
    damage = DAMAGES[(list(SQUEEZES).index(squeeze) + list(STACKS).index(stack)) % len(DAMAGES)]
    model = build_autoencoder(config(squeeze, stack, damage)).train()
    x = data(stack)
    model.scaling.fit(x)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for step in range(20):
        torch.manual_seed(0)  # the same corruption and draws: the loss of one fixed problem
        result = model(x, step=step)
        optimizer.zero_grad()
        model.total_loss(result.losses, step).backward()
        optimizer.step()
        losses.append(number(result.losses["reconstruction"]))
    assert losses[-1] < losses[0], losses
    model.eval().fit_density(x)
    scores = model.score_samples(x)
    model.save_pretrained(tmp_path)
    loaded = Autoencoder.from_pretrained(tmp_path)
    assert torch.equal(loaded.score_samples(x), scores)
    if stack not in SEQUENCES:
        assert torch.equal(loaded.sample(3), model.sample(3))
    lengths = torch.full((len(x),), 4) if stack in SEQUENCES else None
    made = model.inverse_transform(model.transform(x), lengths)
    torch.testing.assert_close(made, model.reconstruct(x))
