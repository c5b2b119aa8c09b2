"""A second player in the loop, and several ranks."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from vqtok.autoencoders.presets import residual_conv
from vqtok.training import Adversary, Inputs, Task, TrainConfig, Trainer, prefetch


class Toy:
    """Batches of smooth random images, a function of their number alone."""

    batch_size = 4

    def __init__(self):
        self.skipped = []

    def __len__(self):
        return 1

    digest = "toy"

    def batch(self, index):
        generator = torch.Generator().manual_seed(index)
        coarse = torch.rand(self.batch_size, 3, 4, 4, generator=generator) * 2 - 1
        return nn.functional.interpolate(coarse, size=16, mode="bilinear")

    def batches(self, start, stop, stride=1):
        return prefetch(self.batch, range(start, stop, stride))


class Kept:
    """An outcome that is only its weights."""

    def __init__(self, model):
        self.model = model
        self.fingerprint = self.name = "none"

    def save_pretrained(self, folder):
        torch.save(self.model.state_dict(), Path(folder) / "weights.pt")


class ToyTask(Task):
    def inputs(self, batch, device):
        return Inputs(batch.to(device))

    def outcome(self, model, *, name, training, device):
        return Kept(model)

    def validate(self, outcome, batch, folder):
        return {"seen": len(batch)}


class Critic(Adversary):
    def __init__(self):
        super().__init__()
        self.config = {"type": "toy"}
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, 1, 4))

    def fool(self, output, target, step):
        return {"adversarial": -self.net(output).mean()}

    def learn(self, output, target, step):
        real, made = self.net(target), self.net(output)
        return (1 - real).relu().mean() + (1 + made).relu().mean()


def trainer(out, *, critic=False, **changes):
    settings = {"steps": 6, "batch_size": 4, "warmup": 1, "autocast": False, "log_every": 1}
    task = ToyTask()
    task.adversary = Critic() if critic else None
    config = TrainConfig(**{**settings, "save_every": 3, **changes})
    model = residual_conv(
        encoder_blocks=[0],
        decoder_blocks=[0],
        encoder_channels=[4],
        decoder_channels=[4],
        dim=4,
        codebook_size=8,
        num_codebooks=1,
    )
    return Trainer(model.config, Toy(), out, config, name="toy", task=task)


def test_prefetch_is_in_order():
    assert list(prefetch(lambda index: index * 10, range(3, 20, 4))) == [30, 70, 110, 150, 190]


def test_prefetch_passes_errors_on():
    def broken(index):
        raise OSError(f"batch {index}")

    with pytest.raises(OSError, match="batch 0"):
        list(prefetch(broken, range(3)))


def test_both_players_learn_and_resume_bit_for_bit(tmp_path):
    whole = trainer(tmp_path / "whole", critic=True)
    start = {name: value.clone() for name, value in whole.adversary.state_dict().items()}
    whole.fit()
    assert any(not torch.equal(start[k], v) for k, v in whole.adversary.state_dict().items())
    stopped = trainer(tmp_path / "parts", critic=True)
    save = stopped.save

    def save_then_stop():
        save()
        raise KeyboardInterrupt

    stopped.save = save_then_stop
    with pytest.raises(KeyboardInterrupt):
        stopped.fit()
    assert stopped.step == 3
    resumed = trainer(tmp_path / "parts", critic=True)
    resumed.fit()
    for one, other in [
        (whole.model, resumed.model),
        (whole.adversary, resumed.adversary),
    ]:
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
    line = json.loads((tmp_path / "whole/metrics.jsonl").read_text().splitlines()[0])
    assert {"loss/adversarial", "adversary"} <= line.keys()


def test_the_adversary_moves_the_model_by_its_loss_alone(tmp_path):
    """The first step's gradient of the model is that of reconstruction plus fooling."""
    run = trainer(None, critic=True, clip=1e9)
    batch = run.data.batch(0)
    run._train_step(batch)
    torch.manual_seed(run.config.seed * 1_000_003)
    again = trainer(None, critic=True, clip=1e9)
    torch.manual_seed(run.config.seed * 1_000_003)
    result = again.model.train()(batch)
    total = again.model.total_loss(result.losses) - again.adversary.net(result.output).mean()
    total.backward()
    for (name, ours), expected in zip(
        run.model.named_parameters(), again.model.parameters(), strict=True
    ):
        torch.testing.assert_close(ours.grad, expected.grad, msg=name, rtol=1e-4, atol=1e-7)


def test_in_memory_runs_write_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = trainer(None)
    run.fit()
    assert [line["seen"] for line in run.log if "seen" in line] == [4, 4]
    assert not list(tmp_path.iterdir())


def worker(out: Path) -> None:
    """What each rank runs: train, and keep the weights that this rank ended with."""
    from vqtok.training.ranks import joined, this_rank, world_size

    torch.set_num_threads(1)
    with joined("cpu"):
        assert world_size() == 2
        run = trainer(out / "run", critic=True, steps=3)
        run.fit()
        state = {**run.model.state_dict(), **run.adversary.state_dict()}
        torch.save(state, out / f"{this_rank()}.pt")
        resumed = trainer(out / "run", critic=True, steps=3)
        resumed.fit()
        assert resumed.step == 3


def test_ranks_agree_and_resume(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(tmp_path)],
            env={**os.environ, **group, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [process.wait(200) for process in processes] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines if "loss" in line] == [1, 2, 3]


def test_gradients_are_averaged_over_ranks(monkeypatch):
    from vqtok.training import ranks

    monkeypatch.setattr(ranks, "world_size", lambda: 2)
    monkeypatch.setattr(ranks.dist, "all_reduce", lambda flat: flat.add_(10.0))
    parameters = [nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(4))]
    parameters[0].grad = torch.full((2, 3), 4.0)
    ranks.average_gradients(parameters)
    assert torch.equal(parameters[0].grad, torch.full((2, 3), 7.0))
    assert torch.equal(parameters[1].grad, torch.full((4,), 5.0))


if __name__ == "__main__":
    worker(Path(sys.argv[1]))
