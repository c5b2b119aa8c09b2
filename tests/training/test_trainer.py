import json
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from vqtok.autoencoders import preset_config
from vqtok.errors import DataError, UsageError
from vqtok.media.listing import list_sources
from vqtok.tokenizer import Tokenizer
from vqtok.training import NotFiniteError, PhotoCrops, TrainConfig, Trainer
from vqtok.training.checkpoint import CHECKPOINT_NAME
from vqtok.training.config import learning_rate


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for index in range(4):
        photo = Image.new("RGB", (160, 120))
        pen = ImageDraw.Draw(photo)
        for _ in range(40):  # sharp edges, which a linear transform codes badly
            left, top = generator.integers(0, 150), generator.integers(0, 110)
            box = (left, top, left + generator.integers(5, 60), top + generator.integers(5, 60))
            pen.rectangle(box, fill=tuple(int(v) for v in generator.integers(0, 256, 3)))
        photo.save(folder / f"{index}.png")
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(folder / "small.png")
    (folder / "broken.png").write_bytes(b"not an image")
    return folder


def crops(folder):
    return PhotoCrops(list_sources(str(folder)), size=32, batch_size=4, seed=1)


def config(**changes):
    settings = {"steps": 12, "batch_size": 4, "crop": 32, "warmup": 2}
    return TrainConfig(**{**settings, "log_every": 1, "save_every": 4, **changes})


def trainer(folder, out, **changes):
    return Trainer(preset_config("photo-tiny"), crops(folder), out, config(**changes), name="tiny")


def test_crops_are_a_function_of_seed_and_step(photos):
    first, second = crops(photos), crops(photos)
    ahead = list(first.batches(2, 7))
    assert len(ahead) == 5
    for step, batch in zip(range(2, 7), ahead, strict=True):
        assert batch.shape == (4, 3, 32, 32)
        assert batch.dtype == torch.uint8
        assert torch.equal(batch, second.batch(step))
    assert not torch.equal(ahead[0], ahead[1])


def test_crops_without_a_cache_are_the_same(photos):
    uncached = PhotoCrops(list_sources(str(photos)), size=32, batch_size=4, seed=1, cache_bytes=0)
    assert torch.equal(uncached.batch(3), crops(photos).batch(3))


def test_unusable_photos_are_named(photos):
    skipped = crops(photos).skipped
    assert len(skipped) == 2
    assert any("small.png: 20x20 is too small" in line for line in skipped)
    assert any(line.startswith("broken.png") for line in skipped)
    with pytest.raises(UsageError, match="none of the 6 images"):
        PhotoCrops(list_sources(str(photos)), size=500, batch_size=4)


def test_training_learns(photos, tmp_path):
    trainer(photos, tmp_path, steps=120, learning_rate=3e-3, save_every=120).fit()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss/reconstruction"] for line in lines if "loss" in line]
    assert np.mean(losses[-20:]) < 0.85 * np.mean(losses[:20])
    assert lines[-1]["validation_psnr"][0] > 15
    with Image.open(tmp_path / "preview.png") as preview:
        assert preview.size[0] % 32 == 0


def test_a_stopped_run_continues_bit_for_bit(photos, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = trainer(photos, whole).fit()
    run = trainer(photos, parts)
    monitored = run.save

    def save_then_stop():
        monitored()
        if run.step == 8:
            raise KeyboardInterrupt

    run.save = save_then_stop
    with pytest.raises(KeyboardInterrupt):
        run.fit()
    resumed = trainer(photos, parts).fit()
    assert resumed.fingerprint == expected.fingerprint
    steps = [
        json.loads(line)["step"] for line in (parts / "metrics.jsonl").read_text().splitlines()
    ]
    assert sorted(set(steps)) == list(range(1, 13))


def test_a_finished_run_stays_as_it_is(photos, tmp_path):
    first = trainer(photos, tmp_path).fit()
    assert trainer(photos, tmp_path).fit().fingerprint == first.fingerprint


def test_the_folder_is_a_tokenizer(photos, tmp_path):
    tokenizer = trainer(photos, tmp_path).fit()
    loaded = Tokenizer.from_pretrained(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.training["train"]["seed"] == 0
    assert {"vqtok", "torch", "python", "machine", "threads"} <= loaded.training.keys()


def test_other_settings_do_not_resume(photos, tmp_path):
    trainer(photos, tmp_path).fit()
    with pytest.raises(UsageError, match=r"other settings: learning_rate 0\.01 instead of 0\.001"):
        trainer(photos, tmp_path, learning_rate=1e-2).fit()


def test_a_tokenizer_is_not_overwritten(photos, tmp_path):
    trainer(photos, tmp_path / "a").fit().save_pretrained(tmp_path / "b")
    with pytest.raises(UsageError, match="already holds a tokenizer"):
        trainer(photos, tmp_path / "b").fit()


def test_nan_is_traced_to_its_layer(photos, tmp_path):
    run = trainer(photos, tmp_path)
    block = run.model.encoder.layers[3]
    with torch.no_grad():
        block.expand.weight.fill_(1e30)
        block.project.weight.fill_(1e30)
    with pytest.raises(NotFiniteError, match=r"step 0: layer encoder\.layers\.3\.project"):
        run.fit()


def test_a_nan_parameter_is_named(photos, tmp_path):
    run = trainer(photos, tmp_path)
    with torch.no_grad():
        run.model.decoder.layers[0].weight[0] = float("nan")
    with pytest.raises(NotFiniteError, match=r"parameter decoder\.layers\.0\.weight"):
        run.fit()


def test_other_data_does_not_resume(photos, tmp_path):
    trainer(photos, tmp_path / "run").fit()
    other = tmp_path / "other"
    shutil.copytree(photos, other)
    with Image.open(other / "0.png") as photo:
        photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((170, 130)).save(other / "0.png")
    with pytest.raises(UsageError, match="another data"):
        trainer(other, tmp_path / "run").fit()


def test_a_run_killed_after_its_last_checkpoint_still_makes_the_tokenizer(
    photos, tmp_path, monkeypatch
):
    run = trainer(photos, tmp_path, save_every=100)
    monkeypatch.setattr(run, "_export", lambda: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        run.fit()
    assert not (tmp_path / "config.json").exists()
    trained = trainer(photos, tmp_path, save_every=100).fit()
    assert Tokenizer.from_pretrained(tmp_path).fingerprint == trained.fingerprint


def test_ctrl_c_finishes_the_step_and_saves(photos, tmp_path, monkeypatch):
    expected = trainer(photos, tmp_path / "whole", save_every=100).fit()
    run = trainer(photos, tmp_path / "parts", save_every=100)
    step = run._train_step

    def press(batch):
        if run.step == 5:
            signal.raise_signal(signal.SIGINT)
        return step(batch)

    monkeypatch.setattr(run, "_train_step", press)
    with pytest.raises(KeyboardInterrupt):
        run.fit()
    resumed = trainer(photos, tmp_path / "parts", save_every=100)
    assert resumed.fit().fingerprint == expected.fingerprint
    lines = (tmp_path / "parts/metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert sorted(set(steps)) == list(range(1, 13))


def test_a_damaged_checkpoint_is_refused(photos, tmp_path):
    trainer(photos, tmp_path).fit()
    path = tmp_path / CHECKPOINT_NAME
    content = bytearray(path.read_bytes())
    content[-100] ^= 4
    path.write_bytes(content)
    with pytest.raises(DataError, match="checksum does not match"):
        trainer(photos, tmp_path).fit()
    path.write_bytes(content[:1000])
    with pytest.raises(DataError, match="damaged or not a training checkpoint"):
        trainer(photos, tmp_path).fit()


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"learning_rate": -1.0},
        {"learning_rate": float("nan")},
        {"seed": -1},
        {"seed": 2**63},
    ],
)
def test_settings_out_of_range(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        TrainConfig(**{"steps": 5, **wrong})


def test_out_is_a_file(photos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        trainer(photos, tmp_path / "file").fit()


def test_learning_rate_schedule():
    schedule = TrainConfig(steps=100, warmup=10, learning_rate=1.0)
    rates = [learning_rate(schedule, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5)
    assert rates[-1] < 1e-3


def test_warm_start(photos, tmp_path):
    start = trainer(photos, tmp_path / "a").fit()
    run = Trainer(
        start.autoencoder.config,
        crops(photos),
        tmp_path / "b",
        config(),
        name="more",
        init=start,
    )
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, start.autoencoder.state_dict()[name]), name


def test_a_large_codebook_starts_from_many_batches(photos):
    """A batch of 4 has 64 latents; k-means of 256 codes needs more than that."""
    parts = preset_config("photo-tiny")
    layer = {**parts["quantizer"]["layers"][0], "codebook_size": 256}
    run = Trainer({**parts, "quantizer": layer}, crops(photos), None, config(steps=1), name="one")
    seen = torch.cat([run.task.inputs(run.data.batch(i), run.device).values for i in range(32)])
    latents = run.model.encode(seen).detach().reshape(-1, 32)
    assert len(latents) == 8 * 256
    run.task.start(run.model, run.data, run.device)
    table = run.model.quantizer.embeddings
    # Lloyd's condition, roughly: means of the latents that chose them, so codes are for all
    # batches and not for the first alone.
    distance = torch.cdist(latents.double(), table.double())
    error = distance.amin(1).square().mean()
    assert len(distance.argmin(1).unique()) > 0.9 * 256
    first = latents[torch.randperm(64)].double()  # all that one batch could give
    assert error < 0.6 * torch.cdist(latents.double(), first).amin(1).square().mean()


def test_a_start_is_not_taken_from_a_run_that_has_one(photos, tmp_path, monkeypatch):
    start = trainer(photos, tmp_path / "a").fit()
    more = Trainer(start.autoencoder.config, crops(photos), None, config(), name="more", init=start)
    monkeypatch.setattr(more.task, "start", lambda *_: pytest.fail("it has learned already"))
    more.fit()
