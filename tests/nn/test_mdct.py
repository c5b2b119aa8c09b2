import math

import pytest
import torch

from vqtok.nn.mdct import MDCT


def by_definition(frame, hop):
    """The windowed MDCT and MDST of one frame [2 * hop], in float64, term by term."""
    cosines, sines = [], []
    for k in range(hop):
        total = 0j
        for n in range(2 * hop):
            window = math.sin(math.pi / (2 * hop) * (n + 0.5))
            angle = math.pi / hop * (n + 0.5 + hop / 2) * (k + 0.5)
            total += float(frame[n]) * window * complex(math.cos(angle), math.sin(angle))
        cosines.append(math.sqrt(2 / hop) * total.real)
        sines.append(math.sqrt(2 / hop) * total.imag)
    return torch.tensor(cosines), torch.tensor(sines)


def test_forward_is_the_definition():
    torch.manual_seed(0)
    wave = torch.randn(1, 8 * 5)
    cosines, sines = MDCT(8)(wave)
    assert cosines.shape == sines.shape == (1, 5, 8)
    padded = torch.nn.functional.pad(wave, (4, 4))[0]
    for index in range(5):
        expected = by_definition(padded[index * 8 : index * 8 + 16], 8)
        torch.testing.assert_close(cosines[0, index], expected[0], atol=2e-6, rtol=0)
        torch.testing.assert_close(sines[0, index], expected[1], atol=2e-6, rtol=0)


@pytest.mark.parametrize("hop", [2, 8, 320])
def test_silence_around_makes_it_invertible_and_orthonormal(hop):
    torch.manual_seed(1)
    wave = torch.nn.functional.pad(torch.randn(2, hop * 6), (hop, hop))
    mdct = MDCT(hop)
    coefficients, _ = mdct(wave)
    torch.testing.assert_close(mdct.inverse(coefficients), wave, atol=1e-5, rtol=0)
    torch.testing.assert_close(coefficients.square().sum(), wave.square().sum())


def test_without_silence_only_the_outer_half_hops_suffer():
    torch.manual_seed(2)
    wave = torch.randn(1, 16 * 4)
    mdct = MDCT(16)
    error = (mdct.inverse(mdct(wave)[0]) - wave).abs()[0]
    assert error[8:-8].max() < 1e-5
    assert error[:8].max() > 0.1 < error[-8:].max()


def test_lengths():
    mdct = MDCT(4)
    assert mdct(torch.zeros(3, 0))[0].shape == (3, 0, 4)
    assert mdct.inverse(torch.zeros(3, 0, 4)).shape == (3, 0)
    assert mdct.inverse(torch.zeros(3, 1, 4)).shape == (3, 4)
    with pytest.raises(ValueError, match=r"multiple of 4, not \[3, 7\]"):
        mdct(torch.zeros(3, 7))
    with pytest.raises(ValueError, match="even"):
        MDCT(5)


def test_autocast_leaves_precision_alone():
    wave = torch.nn.functional.pad(torch.randn(1, 32), (16, 16))
    mdct = MDCT(16)
    with torch.autocast("cpu", torch.bfloat16):
        again = mdct.inverse(mdct(wave)[0])
    torch.testing.assert_close(again, wave, atol=1e-5, rtol=0)
