import math

import pytest
import torch

from vqtok.nn.sound_losses import SoundLoss, mel_filters
from vqtok.nn.spectrum import Spectrum

RATE = 8000


def waves(seed=0, samples=2048):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, samples, generator=generator, dtype=torch.float64) * 0.3


def test_spectrum_is_torch_stft():
    wave = waves().float()
    window = torch.hann_window(256)
    expected = (
        torch.stft(wave, 256, 128, window=window, center=False, return_complex=True)
        / window.square().sum().sqrt()
    )
    found = Spectrum(256)(wave)
    torch.testing.assert_close(torch.view_as_complex(found), expected.transpose(1, 2))


def test_white_noise_has_unit_power():
    noise = torch.randn(1, 200_000, generator=torch.Generator().manual_seed(0))
    power = Spectrum(512)(noise).square().sum(-1).mean((0, 1))
    assert (power[1:-1] - 1).abs().max() < 0.2
    assert abs(float(power[1:-1].mean()) - 1) < 0.02


def test_terms_are_their_definitions():
    """In float64 from numpy's transform, one resolution."""
    first, second = waves(1), waves(2)
    loss = SoundLoss(RATE, (256,), mel=2.0, spectrum=3.0, samples=5.0)
    window = torch.hann_window(256, dtype=torch.float64)
    window = window / window.square().sum().sqrt()
    spectra = [torch.fft.rfft(wave.unfold(-1, 256, 128) * window) for wave in (first, second)]
    filters = mel_filters(RATE, 256, 16)
    mels = [(spectrum.abs() @ filters + 1e-3).log10() for spectrum in spectra]
    powered = [torch.polar(spectrum.abs().sqrt(), spectrum.angle()) for spectrum in spectra]
    expected = {
        "mel": (mels[0] - mels[1]).abs().mean(),
        "spectrum": torch.view_as_real(powered[0] - powered[1]).abs().mean(),
        "samples": (first - second).abs().mean(),
    }
    terms = loss.terms(first.float(), second.float())
    for name, value in expected.items():
        torch.testing.assert_close(terms[name].double(), value, rtol=1e-4, atol=1e-5)
    total = 2 * expected["mel"] + 3 * expected["spectrum"] + 5 * expected["samples"]
    torch.testing.assert_close(
        loss(first.float(), second.float()).double(), total, rtol=1e-4, atol=0
    )


def test_resolutions_are_averaged():
    first, second = waves(1).float(), waves(2).float()
    both = SoundLoss(RATE, (128, 512)).terms(first, second)
    single = [SoundLoss(RATE, (length,)).terms(first, second) for length in (128, 512)]
    for name in ("mel", "spectrum"):
        torch.testing.assert_close(both[name], (single[0][name] + single[1][name]) / 2)


def test_mel_is_blind_to_polarity_and_complex_is_not():
    wave = waves().float()
    terms = SoundLoss(RATE).terms(-wave, wave)
    assert terms["mel"] == 0
    assert terms["spectrum"] > 0.3
    assert SoundLoss(RATE)(wave, wave) == 0


def test_ten_decibels_are_half_a_mel_unit():
    wave = waves().float()
    terms = SoundLoss(RATE).terms(wave * 10**0.5, wave)
    torch.testing.assert_close(terms["mel"], torch.tensor(0.5), rtol=0.01, atol=0)


def test_gradients_are_finite_for_silence_and_short_sounds():
    loss = SoundLoss(RATE)
    for target in (torch.zeros(1, 4096), torch.zeros(1, 10), waves().float()):
        output = torch.zeros_like(target, requires_grad=True)
        loss(output, target).backward()
        assert output.grad.isfinite().all()


def test_gradient_is_that_of_float64_differences():
    loss = SoundLoss(RATE, (64,))
    target, output = waves(3, 256).float(), waves(4, 256).float().requires_grad_()
    loss(output, target).backward()
    direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(5))
    step = 1e-3
    with torch.no_grad():
        ahead, behind = (loss(output + sign * step * direction, target) for sign in (1, -1))
    slope = float((ahead - behind) / (2 * step))
    assert slope == pytest.approx(float((output.grad * direction).sum()), rel=0.02)


@pytest.mark.parametrize(("length", "bands"), [(32, 8), (256, 20), (2048, 120)])
def test_mel_filters(length, bands):
    filters = mel_filters(24_000, length, bands)
    assert filters.shape == (length // 2 + 1, bands)
    assert (filters >= 0).all()
    torch.testing.assert_close(filters.sum(0), torch.ones(bands, dtype=torch.float64))
    centres = (filters * torch.arange(length // 2 + 1)[:, None]).sum(0)
    assert (centres.diff() >= 0).all()
    if length == 2048:
        top = 2595 * math.log10(1 + 12_000 / 700)
        middle = 700 * (10 ** (top * 61 / 121 / 2595) - 1)
        assert centres[60] * 24_000 / length == pytest.approx(middle, rel=0.01)


def test_windows_must_divide():
    with pytest.raises(ValueError, match="multiple of 4"):
        Spectrum(6)
