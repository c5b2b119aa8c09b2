"""The page of an autoencoder: its facts are right, and its pictures show what they say."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from vqtok.autoencoders import variant
from vqtok.cli import main
from vqtok.training import default_config, fit
from vqtok.training.page import autoencoder_page, grid


def images(count=60):
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(count, 1, 8, 8, generator=generator) * 255).byte()


def trained(name, data, tmp_path, **settings):
    return fit(name, data, default_config(steps=20), out=tmp_path, **settings).model


def test_a_grid_keeps_pixels():
    samples = torch.arange(2 * 3 * 1 * 4 * 4).float().view(2, 3, 1, 4, 4)
    picture = np.asarray(grid(samples).convert("L")).astype(float)
    tile = picture[68 : 68 + 64 : 16, 2 * 68 : 2 * 68 + 64 : 16]  # second row, third column
    expected = (samples[1, 2, 0].numpy() / 95 * 255).round()
    np.testing.assert_array_equal(tile, expected)


@pytest.mark.filterwarnings("ignore:.*memorises")  # the images are noise
@pytest.mark.parametrize("name", ["vae", "sparse", "vqvae", "vanilla"])
def test_the_page_of_a_model(name, tmp_path, capsys):
    data = images()
    np.savez(tmp_path / "data.npz", X=data.numpy())
    model = trained(name, data, tmp_path / "run", contamination=0.2)
    command = ["inspect", str(tmp_path / "run"), "--data", str(tmp_path / "data.npz"), "--json"]
    assert main([*command, "--page", str(tmp_path / "page.html")]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["fingerprint"] == model.fingerprint
    assert facts["anomalies"] == int((model.score_samples(data) < model.threshold).sum())
    code = model.transform(data)
    if name == "vae":
        assert facts["active_units"] == int((code.var(0, correction=0) > 0.01).sum())
    if name == "sparse":
        assert facts["unused_latents"] == int((code == 0).all(0).sum())
        assert facts["dead_latents"] == int(model.bottleneck.dead.sum())
    if name == "vqvae":
        assert facts["usage"] == [len(code.unique()) / 256]
    text = (tmp_path / "page.html").read_text()
    pictures = re.findall(r"base64,([^']+)", text)
    assert len(pictures) == 4
    for picture in pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture))) as opened:
            assert opened.size[0] == 8 * 68
    assert main([*command, "--page", str(tmp_path / "page.png")]) == 0
    with Image.open(tmp_path / "page.png") as opened:
        assert opened.size[1] > 600


def test_tables_are_curves_and_data_are_optional(tmp_path):
    data = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    model = trained("vanilla", data, tmp_path)
    titles = [title for title, _ in autoencoder_page(model).pictures]
    assert len(titles) == 2
    assert "principal axes" in titles[1]
    assert len(autoencoder_page(model, data).pictures) == 4


def test_untrained_models_have_only_facts():
    page = autoencoder_page(variant("vae", (6,)))
    assert page.pictures == ()
    assert page.facts["bottleneck"] == "gaussian"


def test_wrong_usage(tmp_path, capsys):
    trained("vanilla", images(), tmp_path / "run")
    np.save(tmp_path / "other.npy", np.zeros((5, 3)))
    for options, message in [
        (["--page", "page.pdf"], "ends in .html or .png"),
        (["--data", str(tmp_path / "other.npy")], "does not fit"),
    ]:
        assert main(["inspect", str(tmp_path / "run"), *options]) == 2
        assert message in capsys.readouterr().err
    assert main(["inspect", "photo", "--page", "page.html"]) == 2
    assert "for autoencoders" in capsys.readouterr().err
    assert main(
        ["encode", str(tmp_path), str(tmp_path / "t"), "--tokenizer", str(tmp_path / "run")]
    )
