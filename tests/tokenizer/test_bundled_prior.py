from __future__ import annotations

import numpy as np
import torch

from vqtok.media import read_audio, read_image
from vqtok.samples import photos, sounds
from vqtok.tokenizer import Tokenizer


def test_audio_comes_with_a_prior_that_pays() -> None:
    tokenizer = Tokenizer.from_pretrained("audio")
    prior = tokenizer.prior
    assert prior is not None
    assert len(prior.to_bytes()) <= 1_000_000
    sound = read_audio(next(path for path in sounds() if "speech" in path.name))
    audio = torch.from_numpy(sound.samples)[None, :1, : 3 * sound.sample_rate]
    codes = tokenizer.encode(audio, sample_rate=sound.sample_rate)[0].numpy()
    streams = prior.encode(codes)
    assert (prior.decode(streams, codes.shape[:2]) == codes).all()
    assert 8 * sum(map(len, streams)) < 0.8 * 10 * codes.size
    said = prior.training["bits_per_code"]
    assert sum(said["integer"]) <= 1.01 * sum(said["float"])
    assert sum(said["integer"]) < 0.85 * sum(said["order0"])


def test_photo_comes_with_a_prior_that_pays() -> None:
    tokenizer = Tokenizer.from_pretrained("photo")
    prior = tokenizer.prior
    assert prior is not None
    assert len(prior.to_bytes()) <= 1_000_000
    costs, bits = [], []
    for path in photos()[:2]:
        pixels = read_image(path).pixels[:256, :384]
        images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
        codes = tokenizer.encode(images)[0].numpy()
        streams = prior.encode(codes)
        assert (prior.decode(streams, codes.shape[:2]) == codes).all()
        costs.append(prior.costs(codes).mean((0, 1)))
        bits.append([8 * len(stream) / codes[..., 0].size for stream in streams])
    # streams cost no more than the prior says, and a couple of bytes
    assert (np.array(bits) - np.array(costs)).max() < 0.05
    assert np.sum(bits) < np.sum(costs)
    assert np.mean(costs, axis=0)[0] < 7
    assert np.mean(costs) < 8
    said = prior.training["bits_per_code"]
    assert sum(said["integer"]) <= 1.01 * sum(said["float"])
    assert sum(said["integer"]) < 0.9 * sum(said["order0"])
