"""Arrays from files, and files that are none."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vqtok.errors import DataError, UsageError
from vqtok.training.loading import load_samples


@given(
    st.integers(1, 4).flatmap(
        lambda width: st.lists(
            st.lists(st.floats(-1e6, 1e6, width=32), min_size=width, max_size=width), min_size=1
        )
    ),
    st.booleans(),
)
def test_csv_round_trip(rows, header):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/t.csv"
        with open(path, "w") as file:
            if header:
                file.write(",".join(f"name{i}" for i in range(len(rows[0]))) + "\n")
            for row in rows:
                file.write(",".join(map(repr, row)) + "\r\n")
        expected = torch.tensor(rows, dtype=torch.float32)
        assert torch.equal(load_samples(path).samples, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n", "line 3: 1 values, but there are 2 columns"),
        ("a,b\n1,x\n", "line 2: 'x' in 'b' is no number"),
        ("", "no rows"),
        ("a,b\n", "no rows"),
        ("1,2\n\n2,nan\n", "line 3: 'nan' in 'column 2' is not finite"),
        ("a,b\n1,1e99\n", "line 2: '1e99' in 'b' is not finite"),
        ("a,{b}\n1, \n", "line 2: the value of '{b}' is missing"),
        ("a,b\n1,{x}\n", "line 2: '{x}' in 'b' is no number"),
        ("a;b\n1;2\n", "by ';': separate them by commas"),
        ("1\t2\n", r"by '\\t': separate"),
    ],
)
def test_csv_that_is_no_table(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load_samples(str(tmp_path / "t.csv"))


def test_numpy_files(tmp_path):
    x = np.random.default_rng(0).normal(size=(6, 3))
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", X=x, y=np.zeros(6))
    np.savez(tmp_path / "one.npz", anything=x)
    np.savez(tmp_path / "two.npz", a=x, b=2 * x)
    for name in ("x.npy", "x.npz", "one.npz"):
        torch.testing.assert_close(
            load_samples(str(tmp_path / name)).samples, torch.tensor(x).float()
        )
    two = load_samples(str(tmp_path / "two.npz"), key="b").samples
    torch.testing.assert_close(two, torch.tensor(2 * x).float())
    with pytest.raises(UsageError, match="choose one of a, b"):
        load_samples(str(tmp_path / "two.npz"))
    with pytest.raises(UsageError, match="no array 'c'"):
        load_samples(str(tmp_path / "two.npz"), key="c")
    with pytest.raises(UsageError, match="no such file"):
        load_samples(str(tmp_path / "none.npy"))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[0.0, 1.0], [2.0, np.nan]]), r"x.npy \[1, 1\] is nan"),
        (np.array([["a", "b"]]), "must be numbers"),
    ],
)
def test_arrays_that_hold_no_samples(tmp_path, array, message):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=message):
        load_samples(str(tmp_path / "x.npy"))


def test_damaged_compression_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, X=np.random.default_rng(0).normal(size=(50, 20)))
    content = bytearray(path.read_bytes())
    for place in range(200, len(content) - 200, 7):
        content[place] ^= 255
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="is not a numpy file"):
        load_samples(str(path))


def test_the_content_counts_not_the_ending(tmp_path):
    x = np.arange(6.0).reshape(3, 2)
    np.savez(tmp_path / "x.npz", X=x)
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    assert torch.equal(load_samples(str(tmp_path / "x.npy")).samples, torch.tensor(x).float())


def test_grey_and_channels_last_images_become_channels_first(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (5, 7, 6), dtype=np.uint8)
    np.save(tmp_path / "grey.npy", grey)
    assert load_samples(str(tmp_path / "grey.npy")).samples.shape == (5, 1, 7, 6)
    colour = np.random.default_rng(0).integers(0, 256, (5, 7, 6, 3), dtype=np.uint8)
    np.save(tmp_path / "colour.npy", colour)
    samples = load_samples(str(tmp_path / "colour.npy")).samples
    np.testing.assert_array_equal(samples.numpy(), colour.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("name", ["broken.npy", "broken.npz"])
def test_damaged_and_pickled_files_are_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"\x93NUMPY nonsense")
    with pytest.raises(DataError, match="is not a numpy"):
        load_samples(str(path))
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(DataError, match="not a numpy file of numbers"):
        load_samples(str(tmp_path / "pickled.npy"))


def test_folders_of_images(tmp_path):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (3, 8, 9, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    (tmp_path / "bad.png").write_bytes(b"none")
    loaded = load_samples(str(tmp_path))
    np.testing.assert_array_equal(loaded.samples.numpy(), pixels.transpose(0, 3, 1, 2))
    assert len(loaded.skipped) == 1
    assert load_samples(str(tmp_path), size=4).samples.shape == (3, 3, 4, 4)
    Image.fromarray(pixels[0, :5]).save(tmp_path / "4.png")
    with pytest.raises(UsageError, match=r"4.png is 9x5, the first image 9x8; --size"):
        load_samples(str(tmp_path))
    grey = tmp_path / "grey"
    grey.mkdir()
    Image.fromarray(pixels[0, :, :, 0]).save(grey / "0.png")
    assert load_samples(str(grey)).samples.shape == (1, 1, 8, 9)
