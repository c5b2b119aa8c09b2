import json

import numpy as np
import pytest
import soundfile
import torch

from vqtok.autoencoders import build_autoencoder, preset_config
from vqtok.autoencoders.likelihoods.sound import SoundDistance
from vqtok.errors import UsageError
from vqtok.media.listing import list_sources
from vqtok.nn.sound_losses import SoundLoss
from vqtok.nn.temporal import BLOCKS
from vqtok.tokenizer import Tokenizer
from vqtok.training import AudioCrops, SoundTask, TrainConfig, Trainer

RATE = 8000
SIZE = 1600


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    generator = np.random.default_rng(0)
    time = np.arange(2 * RATE) / RATE
    for index in range(3):
        pitches = generator.uniform(100, 1500, 4)
        tone = sum(np.sin(2 * np.pi * pitch * time) for pitch in pitches) / 8
        tone *= 1 + 0.5 * np.sin(2 * np.pi * 3 * time)
        soundfile.write(folder / f"{index}.wav", np.stack([tone, 0.5 * tone], 1), RATE)
    soundfile.write(folder / "rate.flac", 0.1 * generator.standard_normal(24_000), 16_000)
    soundfile.write(folder / "brief.wav", np.full(100, 0.1), RATE)
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    (folder / "broken.wav").write_bytes(b"not a sound")
    return folder


def crops(folder, **changes):
    settings = {"sample_rate": RATE, "size": SIZE, "batch_size": 4, "seed": 1}
    return AudioCrops(list_sources(str(folder), "audio"), **{**settings, **changes})


def trainer(folder, out, **changes):
    settings = {"steps": 8, "batch_size": 4, "crop": SIZE, "warmup": 2, "log_every": 1}
    config = TrainConfig(**{**settings, "save_every": 4, **changes})
    model = preset_config("audio-tiny")
    return Trainer(model, crops(folder), out, config, name="tiny", task=SoundTask())


def test_crops_are_a_function_of_seed_and_step(sounds):
    first, second = crops(sounds), crops(sounds)
    ahead = list(first.batches(2, 6))
    assert len(ahead) == 4
    for step, batch in zip(range(2, 6), ahead, strict=True):
        assert batch.shape == (4, SIZE)
        assert batch.dtype == torch.float32
        assert torch.equal(batch, second.batch(step))
    assert not torch.equal(ahead[0], ahead[1])
    assert first.digest == second.digest != crops(sounds, seed=2).digest


def test_crops_are_pieces_of_the_sounds(sounds):
    """Up to their level and polarity, and never clipped."""
    data = crops(sounds, size=400)
    wholes = [
        soundfile.read(sounds / f"{index}.wav", always_2d=True)[0].mean(1) for index in range(3)
    ]
    found = 0
    for crop in data.batch(0).double():
        assert crop.abs().max() <= 0.99 + 1e-3
        for whole in wholes:
            windows = torch.from_numpy(whole.copy()).unfold(0, 400, 1)
            likeness = (windows @ crop).abs() / (windows.norm(dim=1) * crop.norm())
            found += bool(likeness.max() > 0.9999)
    assert found >= 2


def test_a_brief_sound_ends_in_silence(sounds):
    data = crops(sounds, size=5 * RATE)
    assert (data.batch(0)[:, 3 * RATE :] == 0).all()
    assert (data.batch(0)[:, :RATE].abs().amax(1) > 0).all()


def test_unusable_sounds_are_named(sounds):
    data = crops(sounds)
    assert len(data) == 4
    assert data.seconds == pytest.approx(3 * 2 + 1.5, abs=0.01)
    reasons = "\n".join(data.skipped)
    assert len(data.skipped) == 3
    for reason in ("brief.wav: 0.01 s is too short", "silent.wav: it is silent", "broken.wav"):
        assert reason in reasons
    with pytest.raises(UsageError, match="none of the 7 sounds"):
        crops(sounds, min_seconds=60.0)


def test_data_must_fit_the_model(sounds):
    task, model = SoundTask(), build_autoencoder(preset_config("audio-tiny"))
    task.check(model, crops(sounds))
    with pytest.raises(UsageError, match="multiple of 160 samples, not 1599"):
        task.check(model, crops(sounds, size=1599))
    with pytest.raises(UsageError, match="for 8000 Hz, not 16000"):
        task.check(model, crops(sounds, sample_rate=16_000))
    with pytest.raises(UsageError, match="not made for sound"):
        task.check(build_autoencoder(preset_config("photo-tiny")), crops(sounds))


def test_training_learns(sounds, tmp_path):
    run = trainer(sounds, tmp_path, steps=150, save_every=150, learning_rate=5e-3)
    tokenizer = run.fit()
    assert tokenizer.modality == "audio"
    losses = [line["loss/reconstruction"] for line in run.log if "loss" in line]
    assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:20])
    scores = run.log[-1]
    for terms in (scores["validation"], scores["validation_unquantized"]):
        assert all(0 < terms[name] < 1 for name in ("mel", "spectrum", "samples"))


def test_a_run_resumes_bit_for_bit(sounds, tmp_path):
    class Flaky(AudioCrops):
        def batch(self, step):
            if step == 6:
                raise InterruptedError
            return super().batch(step)

    whole = trainer(sounds, tmp_path / "whole").fit()
    cut = trainer(sounds, tmp_path / "cut")
    cut.data.__class__ = Flaky
    with pytest.raises(InterruptedError):
        cut.fit()
    again = trainer(sounds, tmp_path / "cut").fit()
    assert again.fingerprint == whole.fingerprint
    assert Tokenizer.from_pretrained(tmp_path / "cut").fingerprint == whole.fingerprint


def test_sound_distance_is_the_loss():
    first, second = torch.randn(2, 1, 4000).unbind()
    distance = SoundDistance(RATE, mel=1.0, spectrum=2.0, samples=3.0)
    expected = SoundLoss(RATE, mel=1.0, spectrum=2.0, samples=3.0)(first, second)
    assert torch.equal(distance(first, second), expected)
    assert torch.equal(distance.cost(first, second), (first - second).abs())


def test_presets_rebuild():
    for name, hop, rate in (("audio", 320, 24_000), ("audio-tiny", 160, 8_000)):
        model = build_autoencoder(json.loads(json.dumps(preset_config(name))))
        assert model.config == preset_config(name)
        assert (model.encoder.hop, model.encoder.sample_rate) == (hop, rate)


def test_presets_have_settings():
    for block in BLOCKS:
        config = preset_config("audio", block=block, causal=True)
        model = build_autoencoder(config)
        assert model.config == config
        assert {config[part]["block"] for part in ("encoder", "decoder")} == {block}
        assert (model.encoder.context[1], model.decoder.context[1]) == (160, 1)
    with pytest.raises(ValueError, match="unknown block 'lstm', expected one of"):
        preset_config("audio", block="lstm")
    with pytest.raises(ValueError, match="photo has no setting 'block'; it has none"):
        preset_config("photo", block="conv")
