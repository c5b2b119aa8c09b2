import numpy as np
import pytest
import torch

from vqtok.errors import UsageError
from vqtok.training.sequences import SequenceData, padded


def long_series():
    """Every value is its own time, so that a window says where it is from."""
    return np.arange(50, dtype=np.float32)[:, None] * [1, -1]


def test_windows_are_pieces():
    data = SequenceData([long_series()], length=8, batch_size=200, seed=1)
    batch = data.batch(0)
    assert batch.mask is None
    assert batch.values.shape == (200, 8, 2)
    assert batch.values.dtype == torch.float32
    starts = batch.values[:, 0, 0]
    expected = starts[:, None] + torch.arange(8)
    assert torch.equal(batch.values, torch.stack([expected, -expected], -1))
    assert starts.min() == 0
    assert starts.max() == 42  # the last window is reached


def test_batches_are_a_function_of_their_number():
    make = lambda seed: SequenceData([long_series()], length=5, batch_size=3, seed=seed)  # noqa: E731
    for index, batch in zip(range(2, 9, 3), make(0).batches(2, 9, 3), strict=True):
        assert torch.equal(batch.values, make(0).batch(index).values)
        assert not torch.equal(batch.values, make(1).batch(index).values)
    assert make(0).digest == make(0).digest
    assert make(0).digest != make(1).digest


def test_every_window_is_as_likely():
    sequences = [np.full(length, length) for length in (3, 10, 19)]  # 1, 1 and 10 windows of 10
    data = SequenceData(sequences, length=10, batch_size=6000)
    batch = data.batch(0)
    counts = [int((batch.values[:, 0] == length).sum()) for length in (3, 10, 19)]
    np.testing.assert_allclose(counts, [500, 500, 5000], atol=100)
    short = batch.values[:, 0] == 3
    assert torch.equal(batch.mask.sum(1), torch.where(short, 3, 10))
    assert (batch.values[short, 3:] == 0).all()


def test_symbols_end():
    text = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", np.uint8)
    data = SequenceData([text], length=6, batch_size=400, end=256, vary=True)
    batch = data.batch(0)
    assert batch.values.dtype == torch.int64
    lengths = batch.mask.sum(1)
    assert set(lengths.tolist()) == {2, 3, 4, 5, 6, 7}
    assert 200 < int((lengths == 7).sum()) < 280  # half, and a sixth of the other half
    for row, length in zip(batch.values.tolist(), lengths.tolist(), strict=True):
        assert row[length - 1] == 256
        assert bytes(row[: length - 1]) in text.tobytes()


def test_padding():
    batch = padded([np.array([1, 2]), np.array([3])])
    assert batch.values.tolist() == [[1, 2], [3, 0]]
    assert batch.mask.tolist() == [[True, True], [True, False]]


def test_no_sequences():
    with pytest.raises(UsageError, match="need at least one"):
        SequenceData([], length=4, batch_size=2)
    with pytest.raises(UsageError, match="not 1, 0 and 2"):
        SequenceData([long_series()], length=0, batch_size=2)
