import pytest
import torch

from vqtok.training.step_scores import step_scores


@pytest.mark.parametrize("stride", [1, 3, 4])
def test_a_step_has_the_mean_of_its_windows(stride):
    series = torch.arange(22.0).reshape(11, 2)
    weights = torch.tensor([1.0, 2.0, 4.0, 8.0])[:, None]  # what a window says depends on place
    found = step_scores(lambda windows: -windows * weights, series, 4, stride=stride)
    starts = sorted({*range(0, 8, stride), 7})
    for step in range(11):
        said = [
            -float(series[step].sum() * weights[step - start])
            for start in starts
            if start <= step < start + 4
        ]
        assert float(found[step]) == pytest.approx(sum(said) / len(said))


def test_wrong_windows():
    for shape, length, stride in (((5, 1), 6, 1), ((5,), 2, 1), ((5, 1), 2, 3), ((5, 1), 0, 1)):
        with pytest.raises(ValueError, match="a series"):
            step_scores(lambda windows: windows, torch.zeros(shape), length, stride=stride)
