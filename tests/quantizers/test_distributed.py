"""Ranks agree: real gloo processes, each check named in what they report.

The worker below runs in its own processes: three ranks, then two of them in a new group.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from vqtok.quantizers import build_quantizer
from vqtok.quantizers.distributed import draw_rows

TIMEOUT = 280
VECTOR = {"type": "vector", "codebook_size": 12, "dim": 4, "decay": 0.8, "revive_below": 0.3}
CONFIGS = {
    "ema": VECTOR,
    "gradient": {**VECTOR, "learning": "gradient", "penalties": ["orthogonal", "diversity"]},
    "cosine": {**VECTOR, "cosine": True},
    "residual-dropout": {"type": "residual", "layers": [VECTOR] * 3, "dropout": 0.8},
    "shared": {"type": "shared_residual", "layer": VECTOR, "num_codebooks": 2},
    "grouped": {"type": "grouped", "layers": [{**VECTOR, "dim": 2}, {"type": "bsq", "bits": 2}]},
    "projected": {"type": "projected", "layer": {**VECTOR, "dim": 2}, "dim": 4},
    "factorised": {
        "type": "residual",
        "layers": [{"type": "projected", "layer": {**VECTOR, "dim": 2}, "dim": 4}] * 2,
        "dropout": 0.5,
    },
    "multiscale": {"type": "multiscale", "layer": VECTOR, "scales": [1, 2]},
    "ibq": {"type": "ibq", "codebook_size": 12, "dim": 4},
}
# What every rank holds, in samples: even, uneven, one rank with nothing.
SIZES = {3: [(4, 4, 4), (7, 1, 3), (0, 5, 2)], 2: [(3, 3), (6, 1), (0, 4)]}


def batch(sizes, seed):
    """[sum of sizes, 2, 2, 4] and a mask in which one sample counts nothing."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(sum(sizes), 2, 2, 4, generator=generator) + 3
    mask = torch.rand(sum(sizes), 2, 2, generator=generator) < 0.8
    mask[-1] = False
    return x, mask


def share(values, sizes, rank):
    return values.split(list(sizes))[rank]


def fingerprint(quantizer):
    return {
        name: value.double().flatten().tolist() for name, value in quantizer.state_dict().items()
    }


def train(quantizer, sizes, rank, seed):
    x, mask = batch(sizes, seed)
    # Each rank draws other random numbers: agreement must not depend on equal seeds.
    torch.manual_seed(1000 * seed + rank)
    return quantizer(share(x, sizes, rank), share(mask, sizes, rank))


def check_state(early, world_size, rank):
    """k-means, then revival and dropout, by quantizers older and newer than the group."""
    states = {}
    for age in ("early", "late"):
        for name, config in CONFIGS.items():
            torch.manual_seed(0)
            quantizer = early[name] if age == "early" else build_quantizer(config).train()
            for seed, sizes in enumerate(SIZES[world_size]):
                train(quantizer, sizes, rank, seed)
            states[f"{age}-{name}"] = fingerprint(quantizer)
    return states


def check_losses(world_size, rank):
    """Entropy, diversity and their gradients under DDP, and the EMA step, of uneven ranks."""
    outcome = {}
    sizes = SIZES[world_size][1]
    for kind, config in soft_configs().items():
        model = linear(config)
        # DDP averages gradients over ranks; a loss over all ranks must come out as of one.
        parallel = DistributedDataParallel(model) if kind != "ema" else model
        x, mask = batch(sizes, 5)
        result = parallel(share(x, sizes, rank), share(mask, sizes, rank))
        names = [name for name in ("entropy", "diversity") if name in result.losses]
        if names:
            sum(result.losses[name] for name in names).backward()
            outcome[kind] = {name: float(result.losses[name].detach()) for name in names}
            outcome[kind]["gradient"] = model.linear.weight.grad.flatten().tolist()
        else:
            outcome[kind] = fingerprint(model.quantizer)
    return outcome


def check_steps(world_size, rank):
    """DDP waits for every parameter: it would refuse the step after one got no gradient."""
    states = {}
    for name in ("ema", "residual-dropout", "factorised", "grouped", "multiscale"):
        model = linear(CONFIGS[name])
        parallel = DistributedDataParallel(model)
        for seed, sizes in enumerate(SIZES[world_size]):
            x, mask = batch(sizes, seed)
            torch.manual_seed(1000 * seed + rank)
            result = parallel(share(x, sizes, rank), share(mask, sizes, rank))
            (result.quantized.sum() + sum(result.losses.values())).backward()
        states[name] = fingerprint(model.quantizer)
    return states


def soft_configs():
    started = {**VECTOR, "kmeans_iterations": 0, "revive_below": 0.0}
    return {
        "lfq": {"type": "lfq", "bits": 4, "temperature": 1.0, "group_bits": 3},
        "bsq": {"type": "bsq", "bits": 4},
        "ibq": {"type": "ibq", "codebook_size": 12, "dim": 4, "temperature": 1.0},
        "ema": started,
    }


class Model(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.quantizer = build_quantizer(config)

    def forward(self, x, mask):
        return self.quantizer(self.linear(x), mask)


def linear(config):
    torch.manual_seed(3)
    model = Model(config).train()
    if config["type"] == "vector":  # past k-means, which random numbers enter
        model.quantizer.initialized.fill_(True)
        model.quantizer._is_initialized = True
    return model


def check_drawn(world_size, rank):
    """Rows drawn from the ranks together."""
    drawn = []
    for seed, sizes in enumerate(SIZES[world_size]):
        x, mask = batch(sizes, seed)
        torch.manual_seed(1000 * seed + rank)
        rows, valid = share(x, sizes, rank).reshape(-1, 4), share(mask, sizes, rank).flatten()
        found, total = draw_rows(rows, valid, 9)
        drawn.append((found.tolist(), int(total)))
    return drawn


# Codebooks that k-means does not draw, so that one process learns the same as several.
MEASURED = {
    "vector": {**VECTOR, "kmeans_iterations": 0, "revive_below": 0.0},
    "simvq": {"type": "simvq", "codebook_size": 12, "dim": 4},
    "fsq": {"type": "fsq", "levels": [5, 4, 3, 3]},
    "lfq": {"type": "lfq", "bits": 4},
    "residual": {
        "type": "residual",
        "layers": [{"type": "simvq", "codebook_size": 9, "dim": 4}] * 2,
    },
    "multiscale": {
        "type": "multiscale",
        "layer": {"type": "bsq", "bits": 4},
        "scales": [1, 2],
    },
}


def check_metrics(world_size, rank):
    """Perplexity, usage and dead codes of each step of uneven ranks."""
    return {
        name: [
            {key: value.tolist() for key, value in metrics.items()}
            for metrics in metrics_of(
                linear(config).quantizer,
                [
                    tuple(share(values, sizes, rank) for values in batch(sizes, seed))
                    for seed, sizes in enumerate(SIZES[world_size])
                ],
            )
        ]
        for name, config in MEASURED.items()
    }


def metrics_of(quantizer, batches):
    return [quantizer(x - 3, mask).metrics for x, mask in batches]


def check_compiled(world_size, rank):
    """Without a graph break while a group is up."""
    torch.manual_seed(0)
    quantizer = build_quantizer({**VECTOR, "kmeans_iterations": 1}).train()
    compiled = torch.compile(quantizer, fullgraph=True, backend="eager")
    train(compiled, SIZES[world_size][1], rank, 0)
    return fingerprint(quantizer)


def work(rank, folder):
    torch.set_num_threads(1)
    early = {}
    for name, config in CONFIGS.items():
        torch.manual_seed(0)
        early[name] = build_quantizer(config).train()
    for world_size in (3, 2):
        if rank >= world_size:
            break
        dist.init_process_group(
            "gloo", f"file://{folder}/store{world_size}", rank=rank, world_size=world_size
        )
        report = {
            "state": check_state(early, world_size, rank),
            "losses": check_losses(world_size, rank),
            "drawn": check_drawn(world_size, rank),
            "steps": check_steps(world_size, rank),
            "metrics": check_metrics(world_size, rank),
        }
        if world_size == 2:
            report["compiled"] = check_compiled(world_size, rank)
        dist.barrier()
        dist.destroy_process_group()
        Path(folder, f"report{world_size}.{rank}.json").write_text(json.dumps(report))


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("torch is built without gloo")
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-W", "ignore", __file__, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([*command, str(rank)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(3)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=TIMEOUT)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    return {
        world_size: [
            json.loads((folder / f"report{world_size}.{rank}.json").read_text())
            for rank in range(world_size)
        ]
        for world_size in (3, 2)
    }


@pytest.mark.parametrize("world_size", [3, 2])
def test_codebooks_are_bit_identical(reports, world_size):
    """Whatever the ranks hold, and whether the quantizer or the group is older."""
    first, *others = (report["state"] for report in reports[world_size])
    assert set(first) == {f"{age}-{name}" for age in ("early", "late") for name in CONFIGS}
    for other in others:
        for name in first:
            assert other[name] == first[name], name


def test_training_moved_the_codebooks(reports):
    torch.manual_seed(0)
    fresh = fingerprint(build_quantizer(VECTOR))
    trained = reports[3][0]["state"]["early-ema"]
    assert trained["embeddings"] != fresh["embeddings"]
    assert sum(trained["embeddings"]) / len(trained["embeddings"]) > 2  # the data's mean is 3
    assert trained["initialized"] == [1.0]


@pytest.mark.parametrize("world_size", [3, 2])
def test_wrapped_quantizers_take_steps_and_agree(reports, world_size):
    first, *others = (report["steps"] for report in reports[world_size])
    assert all(other == first for other in others)


@pytest.mark.parametrize("world_size", [3, 2])
def test_losses_over_ranks_are_those_of_the_whole_batch(reports, world_size):
    x, mask = batch(SIZES[world_size][1], 5)
    for kind, config in soft_configs().items():
        model = linear(config)
        result = model(x, mask)
        for report in reports[world_size]:
            outcome = report["losses"][kind]
            if kind == "ema":
                for name, value in fingerprint(model.quantizer).items():
                    assert outcome[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name
                continue
            for name in ("entropy", "diversity"):
                assert outcome[name] == pytest.approx(float(result.losses[name].detach()), rel=1e-4)
        if kind != "ema":
            (result.losses["entropy"] + result.losses["diversity"]).backward()
            gradient = model.linear.weight.grad.flatten().tolist()
            for report in reports[world_size]:
                wanted = pytest.approx(gradient, rel=1e-3, abs=1e-6)
                assert report["losses"][kind]["gradient"] == wanted, kind


@pytest.mark.parametrize("world_size", [3, 2])
def test_rows_are_drawn_from_all_ranks(reports, world_size):
    for seed, sizes in enumerate(SIZES[world_size]):
        x, mask = batch(sizes, seed)
        there = {tuple(row) for row in x[mask].tolist()}
        for report in reports[world_size]:
            rows, total = report["drawn"][seed]
            assert total == int(mask.sum())
            assert {tuple(row) for row in rows} <= there
            assert len({tuple(row) for row in rows}) == 9  # distinct
            assert rows == reports[world_size][0]["drawn"][seed][0]


@pytest.mark.parametrize("world_size", [3, 2])
def test_metrics_in_training_are_those_of_the_whole_batch(reports, world_size):
    for name, config in MEASURED.items():
        batches = [batch(sizes, seed) for seed, sizes in enumerate(SIZES[world_size])]
        for step, metrics in enumerate(metrics_of(linear(config).quantizer, batches)):
            assert set(metrics) == {"perplexity", "usage", "dead"}
            for report in reports[world_size]:
                for key, value in metrics.items():
                    wanted = pytest.approx(value.tolist(), rel=1e-5)
                    assert report["metrics"][name][step][key] == wanted, (name, step, key)


def test_compiled_ranks_agree(reports):
    first, second = (report["compiled"] for report in reports[2])
    assert first == second


if __name__ == "__main__":
    work(int(sys.argv[2]), sys.argv[1])
