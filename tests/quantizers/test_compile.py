"""No quantizer breaks the graph, in training with k-means, revival and masks, or evaluation."""

import pytest
import torch

from vqtok.quantizers import QUANTIZERS, build_quantizer, residual_fsq

# One Lloyd step: tracing unrolls them.
VECTOR = {"type": "vector", "codebook_size": 8, "dim": 4, "kmeans_iterations": 1}
TABLE = {"codebook_size": 8, "dim": 4}
CONFIGS = {
    "vector": {**VECTOR, "cosine": True, "gradient": "rotation"},
    "vector-gradient": {**VECTOR, "learning": "gradient", "penalties": ["orthogonal", "diversity"]},
    "simvq": {"type": "simvq", **TABLE},
    "ibq": {"type": "ibq", **TABLE},
    "gumbel": {"type": "gumbel", **TABLE},
    "random_projection": {"type": "random_projection", **TABLE, "codebook_dim": 3},
    "fixed": {"type": "fixed", **TABLE},
    "fsq": {"type": "fsq", "levels": [8, 5, 2, 3]},
    "ifsq": {"type": "ifsq", "levels": [8, 5, 2, 3]},
    "clamped_fsq": residual_fsq([8, 5, 2, 3], 1).layers[0].config,
    "wide_fsq": {"type": "wide_fsq", "levels": [8, 5, 3, 3]},
    "symmetric_fsq": {"type": "symmetric_fsq", "levels": [8, 5, 2, 3]},
    "lfq": {"type": "lfq", "bits": 4},
    "bsq": {"type": "bsq", "bits": 4},
    "projected": {"type": "projected", "dim": 4, "layer": {"type": "lfq", "bits": 3}},
    "grouped": {"type": "grouped", "layers": [{**VECTOR, "dim": 2}, {"type": "bsq", "bits": 2}]},
    "residual": {"type": "residual", "layers": [VECTOR] * 2, "dropout": 0.5},
    "residual-projected": {
        "type": "residual",
        "layers": [{"type": "projected", "dim": 4, "layer": {**VECTOR, "dim": 2}}] * 2,
    },
    "shared_residual": {"type": "shared_residual", "layer": VECTOR, "num_codebooks": 2},
    "beam_residual": {"type": "beam_residual", "layers": [VECTOR] * 2, "beam": 3},
    "summed": {"type": "summed", "layers": [VECTOR] * 2},
    "multirate": {
        "type": "multirate",
        "layers": [{**VECTOR, "dim": 2}] * 2,
        "strides": [2, 1],
        "frame": 2,
    },
    "squashed": {
        "type": "squashed",
        "limit": [1.5] * 4,
        "layer": residual_fsq([8, 5, 2, 3], 2).config,
    },
    "pyramid": {
        "type": "pyramid",
        "layer": {"type": "multiscale", "layer": {**VECTOR, "dim": 1}, "scales": [1, 2]},
    },
    "multiscale": {"type": "multiscale", "layer": VECTOR, "scales": [1, 2]},
}


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(5, 2, 2, 4, generator=generator)
    mask = torch.rand(5, 2, 2, generator=generator) < 0.8
    return x.requires_grad_(True), mask


def step(quantizer, seed):
    torch.manual_seed(seed)
    x, mask = batch(seed)
    result = quantizer(x, mask)
    (result.quantized.sum() + sum(result.losses.values())).backward()
    return result, x.grad


def compare(config, backend):
    """Two training steps (the first with k-means) and one evaluation, eager and compiled."""
    torch._dynamo.reset()
    quantizers = []
    for _ in range(2):
        torch.manual_seed(1)
        quantizers.append(build_quantizer(config))
    compiled = torch.compile(quantizers[0], fullgraph=True, backend=backend)
    for seed, training in enumerate((True, True, False)):
        for quantizer in quantizers:
            quantizer.train(training)
        (first, gradient), (second, expected) = (
            step(one, seed) for one in (compiled, quantizers[1])
        )
        assert torch.equal(first.codes, second.codes)
        torch.testing.assert_close(gradient, expected)
        for name, loss in second.losses.items():
            torch.testing.assert_close(first.losses[name], loss)
        for name, metric in second.metrics.items():
            torch.testing.assert_close(first.metrics[name], metric)
    for name, value in quantizers[1].state_dict().items():
        torch.testing.assert_close(quantizers[0].state_dict()[name], value)


def test_every_type_is_covered():
    assert {config["type"] for config in CONFIGS.values()} == set(QUANTIZERS)


@pytest.mark.parametrize("name", CONFIGS)
def test_one_graph(name):
    compare(CONFIGS[name], "eager")


@pytest.mark.parametrize("name", ["vector-gradient", "residual"])
def test_one_graph_with_its_gradients_and_mutations(name):
    compare(CONFIGS[name], "aot_eager")


@pytest.mark.parametrize("name", ["fsq", "simvq"])
def test_one_graph_of_generated_code(name):
    compare(CONFIGS[name], "inductor")


class Encode(torch.nn.Module):
    def __init__(self, quantizer):
        super().__init__()
        self.quantizer = quantizer

    def forward(self, latents):
        return self.quantizer(latents).codes


@pytest.mark.parametrize("name", CONFIGS)
def test_encoding_can_be_exported(name):
    torch.manual_seed(0)
    encode = Encode(build_quantizer(CONFIGS[name]).eval())
    x = batch(0)[0].detach()
    with torch.no_grad():
        exported = torch.export.export(encode, (x,)).module()
        assert torch.equal(exported(x + 1), encode(x + 1))


class Embed(torch.nn.Module):
    def __init__(self, quantizer):
        super().__init__()
        self.quantizer = quantizer

    def forward(self, codes):
        return self.quantizer.embed(codes)


@pytest.mark.parametrize("name", ["vector", "fsq", "residual"])
def test_a_compiled_lookup_still_refuses_wrong_codes(name):
    torch._dynamo.reset()
    torch.manual_seed(0)
    quantizer = build_quantizer(CONFIGS[name]).eval()
    compiled = torch.compile(Embed(quantizer), fullgraph=True, backend="eager")
    codes = quantizer(batch(0)[0]).codes
    assert torch.equal(compiled(codes), quantizer.embed(codes))
    with pytest.raises(RuntimeError, match="code out of range"):
        compiled(codes + 10_000)
