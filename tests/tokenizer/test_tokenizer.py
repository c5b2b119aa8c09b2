import copy
import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from vqtok.autoencoders import build_autoencoder, preset_config
from vqtok.errors import DataError, UsageError
from vqtok.tokenizer import Tokenizer


def images(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def tokenizer():
    torch.manual_seed(0)
    model = build_autoencoder(preset_config("photo-tiny"))
    for parameter in model.parameters():
        if parameter.ndim == 4:
            torch.nn.init.normal_(parameter, std=0.1)
    return Tokenizer(model, name="test")


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (8, 8), (9, 7), (64, 96), (100, 77), (1, 500), (17, 1)]
)
def test_any_size_comes_back(tokenizer, height, width):
    codes = tokenizer.encode(images(2, 3, height, width))
    assert codes.shape == (2, -(-height // 8), -(-width // 8), 2)
    assert codes.dtype == torch.int64
    decoded = tokenizer.decode(codes, size=(height, width))
    assert decoded.shape == (2, 3, height, width)
    assert decoded.dtype == torch.uint8


def test_encode_and_decode_are_the_model_itself(tokenizer):
    """Against the modules called directly on a size that needs no padding."""
    x = images(1, 3, 64, 48)
    model = tokenizer.autoencoder
    result = model.quantizer(model.encoder(x.float() / 127.5 - 1))
    codes = tokenizer.encode(x)
    assert (codes == result.codes).float().mean() > 0.99  # memory format may move a near tie
    decoded = model.decoder(model.quantizer.embed(codes))
    expected = ((decoded + 1) * 127.5).round().clamp(0, 255)
    difference = (tokenizer.decode(codes).float() - expected).abs()
    assert difference.max() <= 1


def test_codes_do_not_depend_on_the_batch(tokenizer):
    x = images(5, 3, 40, 56)
    together = tokenizer.encode(x)
    for index in range(5):
        assert torch.equal(tokenizer.encode(x[index : index + 1]), together[index : index + 1])
    shuffled = torch.tensor([3, 1, 4, 0, 2])
    assert torch.equal(tokenizer.encode(x[shuffled]), together[shuffled])


def test_fewer_codebooks_are_a_prefix(tokenizer):
    x = images(1, 3, 40, 40)
    codes = tokenizer.encode(x)
    assert torch.equal(tokenizer.encode(x, num_codebooks=1), codes[..., :1])
    assert tokenizer.decode(codes[..., :1], size=(40, 40)).shape == (1, 3, 40, 40)


def test_tiles_give_the_codes_of_the_whole_image(tokenizer, monkeypatch):
    x = images(1, 3, 500, 430)
    whole = tokenizer.encode(x)
    picture = tokenizer.decode(whole, size=(500, 430))
    monkeypatch.setattr("vqtok.tokenizer.images._TILE", 128)
    tiled = tokenizer.encode(x)
    # Convolutions may round differently for another shape, so a near tie may fall either way.
    assert (tiled == whole).float().mean() > 0.999
    difference = tokenizer.decode(whole, size=(500, 430)).int() - picture.int()
    assert difference.abs().max() <= 1


def test_the_network_ignores_autocast_and_reduced_precision(tokenizer):
    x = images(1, 3, 64, 64)
    codes = tokenizer.encode(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tokenizer.encode(x), codes)
        assert torch.equal(tokenizer.decode(codes), tokenizer.decode(codes.clone()))
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert torch.equal(tokenizer.encode(x), codes)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_codes_can_train_a_model(tokenizer):
    """Not inference tensors: an embedding of them takes part in autograd."""
    codes = tokenizer.encode(images(1, 3, 16, 16))
    table = torch.nn.Embedding(64, 3)
    table(codes).sum().backward()
    assert table.weight.grad is not None


def test_the_default_dtype_does_not_matter(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    try:
        torch.set_default_dtype(torch.float64)
        loaded = Tokenizer.from_pretrained(tmp_path)
        x = images(1, 3, 24, 24)
        codes = loaded.encode(x)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(codes, tokenizer.encode(x))


def test_memory_does_not_grow_with_the_image(tokenizer):
    """The network sees tiles: its input is never larger than one tile with its margins."""
    seen = []
    hook = tokenizer.autoencoder.encoder.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].shape)
    )
    try:
        tokenizer.encode(images(1, 3, 1300, 2100))
    finally:
        hook.remove()
    margin = 8 * tokenizer._encoder_margin
    assert len(seen) == 6
    assert all(max(shape[2:]) <= 1024 + 2 * margin for shape in seen)


def test_save_and_load(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = Tokenizer.from_pretrained(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.name == "test"
    x = images(1, 3, 30, 30)
    assert torch.equal(loaded.encode(x), tokenizer.encode(x))


def test_fingerprint_follows_weights_and_config(tokenizer):
    model = build_autoencoder(preset_config("photo-tiny"))
    model.load_state_dict(tokenizer.autoencoder.state_dict())
    assert Tokenizer(model, name="other").fingerprint == tokenizer.fingerprint
    with torch.no_grad():
        next(model.parameters())[0] += 1e-3
    assert Tokenizer(model, name="test").fingerprint != tokenizer.fingerprint


@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e4m3fn])
def test_short_storage_loses_nothing(dtype, tmp_path):
    model = build_autoencoder(preset_config("photo-tiny"))
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype).float()
    short = Tokenizer(model, name="short")
    short.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    weights = {n for n, value in model.named_parameters() if value.ndim > 1 and value.any()}
    assert {stored[name].dtype for name in weights} == {dtype}
    loaded = Tokenizer.from_pretrained(tmp_path)
    assert loaded.fingerprint == short.fingerprint
    for name, value in short.autoencoder.state_dict().items():
        assert loaded.autoencoder.state_dict()[name].dtype == value.dtype
        assert torch.equal(loaded.autoencoder.state_dict()[name], value)


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(3, 8, 8, dtype=torch.uint8),
        torch.zeros(1, 4, 8, 8, dtype=torch.uint8),
        torch.zeros(1, 3, 8, 8),
        torch.zeros(1, 3, 0, 8, dtype=torch.uint8),
    ],
)
def test_wrong_images(tokenizer, wrong):
    with pytest.raises(ValueError, match="images"):
        tokenizer.encode(wrong)


def test_wrong_codes_and_sizes(tokenizer):
    codes = tokenizer.encode(images(1, 3, 16, 16))
    with pytest.raises(ValueError, match="cannot be an image of height 17"):
        tokenizer.decode(codes, size=(17, 16))
    with pytest.raises(ValueError, match="codes must be"):
        tokenizer.decode(codes[0])
    with pytest.raises(ValueError, match=r"codebook 0 has codes 0\.\.63"):
        tokenizer.decode(codes + 1000)
    with pytest.raises(ValueError, match=r"num_codebooks must be in 1\.\.2, not 0"):
        tokenizer.encode(images(1, 3, 8, 8), num_codebooks=0)


def test_missing_and_damaged_tokenizers(tokenizer, tmp_path):
    with pytest.raises(UsageError, match="no tokenizer 'nope'"):
        Tokenizer.from_pretrained("nope")
    tokenizer.save_pretrained(tmp_path)
    config_path, weights_path = tmp_path / "config.json", tmp_path / "model.safetensors"
    config = json.loads(config_path.read_text())

    tensors = load_file(weights_path)
    name = next(key for key, value in tensors.items() if value.ndim == 4)
    changed = {**tensors, name: tensors[name] + 1}
    save_file(changed, weights_path)
    with pytest.raises(DataError, match="damaged: its weights have fingerprint"):
        Tokenizer.from_pretrained(tmp_path)

    for weights in (
        {k: v for k, v in tensors.items() if k != name},
        {**tensors, "extra": tensors[name].clone()},
    ):
        save_file(weights, weights_path)
        with pytest.raises(DataError, match="cannot be loaded"):
            Tokenizer.from_pretrained(tmp_path)

    weights_path.write_bytes(b"\x08" + bytes(7) + b"not json")
    with pytest.raises(DataError, match="cannot be loaded"):
        Tokenizer.from_pretrained(tmp_path)

    deep = '{"a":' * 100_000 + "1" + "}" * 100_000
    zero = json.loads(json.dumps(config))
    zero["autoencoder"]["encoder"]["patch"] = 0
    for text, message in (
        (deep, "cannot be read"),
        (json.dumps({**config, "name": 3}), "lacks 'name', or it is not a str"),
        (json.dumps({**config, "training": [1]}), "lacks 'training'"),
        (json.dumps({**config, "modality": "smell"}), "this vqtok knows image"),
        (json.dumps(zero), "cannot be loaded"),
        ("{", "cannot be read"),
        ("[]", "not a model config"),
        (json.dumps({**config, "format": 99}), "another version of vqtok"),
        (json.dumps({"format": 1}), "lacks 'name'"),
    ):
        config_path.write_text(text)
        with pytest.raises(DataError, match=message):
            Tokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda original: pickle.loads(pickle.dumps(original))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_copies_and_pickles(tokenizer, copied):
    """Data workers that are not forked get a pickle."""
    twin = copied(tokenizer)
    assert type(twin) is type(tokenizer)
    assert twin.fingerprint == tokenizer.fingerprint
    x = images(1, 3, 24, 33)
    codes = tokenizer.encode(x)
    assert torch.equal(twin.encode(x), codes)
    assert torch.equal(twin.decode(codes), tokenizer.decode(codes))


def test_a_dtype_is_no_device(tokenizer):
    """As a module would take it; the model would then fail on every image."""
    with pytest.raises(UsageError, match=r"torch.bfloat16 is no device; .* precision="):
        tokenizer.to(torch.bfloat16)
    assert {value.dtype for value in tokenizer.autoencoder.parameters()} == {torch.float32}
