import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqtok.errors import DataError, UsageError
from vqtok.media.series import read_series
from vqtok.media.text import TEXT_END, read_text, symbols_text, text_symbols


@pytest.mark.parametrize("shape", [(3, 5, 2), (5, 2), (5,)])
@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "uint8"])
def test_arrays(tmp_path, shape, dtype):
    array = np.random.default_rng(0).integers(0, 9, shape).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", values=array)
    np.savez_compressed(tmp_path / "b.npz", X=array, labels=np.zeros(3))
    expected = array.reshape(-1, 5, 2 if len(shape) > 1 else 1).astype("float32")
    for name in ("a.npy", "a.npz", "b.npz"):
        series = read_series(tmp_path / name)
        assert all(one.dtype == np.float32 for one in series)
        np.testing.assert_array_equal(np.stack(series), expected)


def test_lengths(tmp_path):
    array = np.random.default_rng(0).normal(size=(3, 5, 2))
    array[1, 2:] = np.nan  # padding
    np.savez(tmp_path / "a.npz", x=array, lengths=np.array([5, 2, 1]))
    series = read_series(tmp_path / "a.npz")
    assert [one.shape for one in series] == [(5, 2), (2, 2), (1, 2)]
    np.testing.assert_array_equal(series[1], array[1, :2].astype("float32"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2\n3,4\n", [[1, 2], [3, 4]]),
        (
            "time,a,b\n2014-07-01 00:00:00,1,-2e3\n2014-07-01 00:30:00,.5,4\n",
            [[1, -2000], [0.5, 4]],
        ),
        ("\ufeffvalue\r\n7\r\n\r\n8\r\n", [[7], [8]]),
    ],
)
def test_csv(tmp_path, text, expected):
    (tmp_path / "a.csv").write_bytes(text.encode())
    np.testing.assert_array_equal(read_series(tmp_path / "a.csv")[0], expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no numbers"),
        ("a,b\n", "no numbers"),
        ("a,b\nx,y\n", "no numbers"),
        ("a,b\n1,2\n3\n", "line 3: 1 fields, not 2"),
        ("a,b\n1,2\n3,four\n", "line 3, column b: 'four' is not a number"),
        ("a,b\n\n1,2\n3,\n", "line 4, column b: the value is missing"),
        ("time;a\n1;2\n", "by ';': separate them by commas"),
        ("a\n1\nnan\n", "time 1, channel 0 is nan"),
        ("a\n1\n1e99\n", "time 1, channel 0 is 1e.99; fill the gap"),
        (b"\xff\xfe1,2", "UTF-8"),
    ],
)
def test_malformed_csv(tmp_path, text, message):
    (tmp_path / "a.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        read_series(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((2, 3, 4, 5))}, r"float64 \[2, 3, 4, 5\]; series are"),
        ({"x": np.zeros((0, 3))}, r"float64 \[0, 3\]; series are"),
        ({"x": np.array(["a", "b"])}, "series are numbers"),
        ({"x": np.array([{}], object)}, "cannot be read: Object arrays"),
        ({"x": np.full((2, 3, 1), np.inf)}, "time 0, channel 0 is inf"),
        ({"a": np.zeros(3), "b": np.zeros(3)}, r"holds \['a', 'b'\]; name the array"),
        ({"x": np.zeros((2, 3, 1)), "lengths": np.array([1, 4])}, r"2 integers in 1..3"),
        ({"x": np.zeros((2, 3, 1)), "lengths": np.array([1])}, r"not int64 \[1\]"),
        ({"x": np.zeros((2, 3)), "lengths": np.array([1, 2])}, "has lengths, but"),
    ],
)
def test_malformed_arrays(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_series(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x93NUMPY\x01\x00", b"PK\x03\x04"])
def test_damaged_arrays(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        read_series(tmp_path / name)


def test_a_header_that_promises_too_much(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(4))
    content = (tmp_path / "a.npy").read_bytes()
    huge = content.replace(b"(4,), }" + b" " * 12, b"(4000000000000,), }")
    assert huge != content
    (tmp_path / "a.npy").write_bytes(huge)
    with pytest.raises(DataError, match="cannot be read"):
        read_series(tmp_path / "a.npy")


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_flipped_bytes_never_escape(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "flipped.npz"
    np.savez_compressed(path, x=np.arange(12.0).reshape(2, 3, 2), lengths=np.array([3, 2]))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    with contextlib.suppress(DataError):
        read_series(path)


def test_a_chosen_array(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(3), other=np.ones(4))
    np.testing.assert_array_equal(read_series(tmp_path / "a.npz", key="other")[0], np.ones((4, 1)))
    with pytest.raises(UsageError, match="no array 'y'; choose one of other, x"):
        read_series(tmp_path / "a.npz", key="y")


def test_other_files(tmp_path):
    with pytest.raises(UsageError, match=r"\.npy, \.npz, \.csv"):
        read_series(tmp_path / "a.wav")
    with pytest.raises(FileNotFoundError):
        read_series(tmp_path / "a.npy")


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=30))
def test_text_comes_back(content):
    symbols = text_symbols(content)
    assert symbols.dtype == np.int64
    assert symbols.tolist() == [*content, TEXT_END]
    assert symbols_text(symbols) == content
    assert symbols_text(symbols[:-1]) == content
    assert symbols_text(np.append(symbols, [7, 7])) == content


def test_text_files(tmp_path):
    (tmp_path / "a.txt").write_bytes("né\r\n".encode())
    assert read_text(tmp_path / "a.txt") == "né\r\n".encode()
    assert text_symbols("né").tolist() == [110, 195, 169, 256]
    (tmp_path / "b.txt").write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        read_text(tmp_path / "b.txt")
