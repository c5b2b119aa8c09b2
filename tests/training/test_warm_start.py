import pytest
import torch

from vqtok.autoencoders import build_autoencoder, preset_config
from vqtok.autoencoders.presets import residual_spectral
from vqtok.errors import UsageError
from vqtok.training.warm_start import load_weights


def model(seed=0, **settings):
    torch.manual_seed(seed)
    sizes = {"channels": 8, "encoder_blocks": 1, "decoder_blocks": 1, "dim": 4, "hop": 160}
    sizes |= {"sample_rate": 8000, "codebook_size": 16, "num_codebooks": 2}
    return residual_spectral(**{**sizes, **settings})


def test_further_codebooks_keep_their_own_start():
    source, target = model(), model(1, num_codebooks=4)
    source.quantizer.layers[1].initialized.fill_(True)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    load_weights(target, source)
    state = source.state_dict()
    for key, value in target.state_dict().items():
        expected = (
            before[key]
            if key.startswith(("quantizer.layers.2", "quantizer.layers.3"))
            else state[key]
        )
        assert torch.equal(value, expected), key
    assert not target.quantizer.layers[2].initialized


def test_they_start_with_k_means_on_what_the_others_leave():
    source, target = model(), model(1, num_codebooks=3)
    source.train()
    wave = torch.randn(8, 8000, generator=torch.Generator().manual_seed(0)) * 0.1
    source(wave)
    load_weights(target, source)
    target.train()
    target.quantizer.dropout = 0.0
    target(wave)
    target.eval(), source.eval()
    latents = target.encoder(wave)
    two, three = (target.quantizer(latents, num_codebooks=q).quantized for q in (2, 3))
    errors = [(latents - each).square().mean() for each in (two, three)]
    assert errors[1] < 0.9 * errors[0]


def test_losses_and_learning_may_differ():
    source, target = model(), model(1, loudness=0.3)
    target.quantizer.layers[0].config["revive_below"] = 0.5
    load_weights(target, source)
    for key, value in source.state_dict().items():
        assert torch.equal(value, target.state_dict()[key]), key


def test_how_a_single_codebook_learns_may_differ():
    config = preset_config("photo-lm")
    earlier = {**config, "quantizer": {**config["quantizer"], "revive_below": 0.02, "decay": 0.9}}
    source, target = build_autoencoder(earlier), build_autoencoder(config)
    load_weights(target, source)
    assert torch.equal(target.quantizer.embeddings, source.quantizer.embeddings)
    fewer = {**config, "quantizer": {**config["quantizer"], "codebook_size": 64}}
    with pytest.raises(UsageError, match="a model with another quantizer"):
        load_weights(build_autoencoder(fewer), source)


def test_the_error_of_pictures_may_become_another():
    torch.manual_seed(0)
    config = preset_config("photo-tiny")
    source = build_autoencoder(config)
    changed = {key: value for key, value in config.items() if key != "reconstruction_loss"}
    target = build_autoencoder({**changed, "likelihood": {"type": "picture", "edges": 0.2}})
    load_weights(target, source)
    for key, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[key]), key
    likely = build_autoencoder({**changed, "likelihood": {"type": "gaussian", "scale": 1.0}})
    with pytest.raises(UsageError, match="a model with another likelihood"):
        load_weights(likely, source)


def test_beam_search_takes_the_weights_of_greedy_search():
    config = {**model().config}
    config["quantizer"] = {**config["quantizer"], "type": "beam_residual", "beam": 2}
    source, target = model(), build_autoencoder(config)
    load_weights(target, source)
    assert torch.equal(target.quantizer.layers[1].embeddings, source.quantizer.layers[1].embeddings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_codebooks": 1}, "those weights have 2 codebooks"),
        ({"codebook_size": 32}, "those weights have 2 codebooks"),
        ({"channels": 16}, "a model with another decoder, encoder"),
        ({"causal": True}, "a model with another decoder, encoder"),
    ],
)
def test_other_models_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        load_weights(model(1, **settings), model())
