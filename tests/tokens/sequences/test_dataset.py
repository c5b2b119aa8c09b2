"""Training sequences: they hold what was encoded, every sample as often as it should be."""

from __future__ import annotations

import pickle
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from vqtok.errors import DataError
from vqtok.tokens import Header, Sample, TokenReader, write_manifest, write_shard
from vqtok.tokens.sequences import (
    PRESETS,
    DamagedSampleWarning,
    TokenDataset,
    TokenSource,
    Vocabulary,
)


def documents_of(dataset: TokenDataset, epoch: int = 0) -> list[list[int]]:
    """The documents of an epoch, put together again from its sequences, in order."""
    found: list[list[int]] = []
    for i in range(dataset.sequences(epoch)):
        item = dataset.read(epoch, i)
        for segment in range(1, item["segments"].max() + 1):
            inside = item["segments"] == segment
            assert (item["positions"][inside] == np.arange(inside.sum())).all()
            part = item["tokens"][inside].tolist()
            if part[0] == dataset.vocabulary.begin:
                found.append(part)
            else:
                found[-1] += part
        padding = item["segments"] == 0
        assert (item["tokens"][padding] == dataset.pad).all()
        assert (np.diff(padding.astype(int)) >= 0).all()
    return found


@pytest.mark.parametrize(("pack", "length"), [("split", 37), ("split", 400), ("single", 400)])
def test_an_epoch_is_every_document_once(sources, vocabulary, folders, pack, length):
    sources = [sources[0], replace(sources[1], repeat=1.0, window=None)]
    dataset = TokenDataset(sources, length, vocabulary, pack=pack, seed=3)
    expected = []
    for source in sources:
        Q = vocabulary.layouts[source.layout].num_codebooks
        reader = TokenReader(folders[source.layout])
        for i in range(len(reader)):
            sample = reader.read(i, Q)
            parts = [source.caption(sample.meta)] if source.caption else []
            document = vocabulary.tokens([*parts, (source.layout, sample.codes)])
            expected.append(document.tolist())
    assert len(dataset) == dataset.sequences(0)
    found = documents_of(dataset)
    assert found != expected
    assert sorted(found) == sorted(expected)
    ordered = TokenDataset(sources, length, vocabulary, pack=pack, shuffle=False)
    assert documents_of(ordered) == expected


def test_whole_documents_are_not_cut(sources, vocabulary):
    dataset = TokenDataset(sources, 160, vocabulary, pack="whole", seed=3)
    documents = 0
    for i in range(len(dataset)):
        item = dataset[i]
        for segment in range(1, item["segments"].max() + 1):
            part = item["tokens"][item["segments"] == segment]
            assert part[0] == vocabulary.begin
            assert part[-1] == vocabulary.end
            documents += 1
    assert documents == dataset.account(0).documents == 150 + 105


@pytest.mark.parametrize("pack", ["split", "whole", "single"])
def test_the_account_is_exact(sources, vocabulary, pack):
    dataset = TokenDataset(sources, 64, vocabulary, pack=pack)
    items = [dataset[i] for i in range(len(dataset))]
    used = sum(int((item["segments"] > 0).sum()) for item in items)
    account = dataset.account(0)
    assert account.sequences == len(items)
    assert account.tokens == used
    assert account.padding == 64 * len(items) - used
    assert (account.cut > 0) == (pack == "single")
    assert (account.documents, account.damaged) == (255, 0)


def test_repeats_and_windows(folders, vocabulary):
    source = TokenSource(folders["photo"], "photo", repeat=6, window=(2, 3))
    dataset = TokenDataset([source], 50, vocabulary, pack="single")
    windows = []
    for i in range(len(dataset)):
        item = dataset[i]
        (segment,) = vocabulary.parse(item["tokens"][item["segments"] > 0])
        windows.append(segment.parsed.codes)
        assert (np.array(windows[-1].shape[:2]) <= (2, 3)).all()
    assert len(windows) == 6 * 150
    found = Counter(window.tobytes() for window in windows)
    places = set()
    for sample in TokenReader(folders["photo"]):
        h, w = np.minimum(sample.codes.shape[:2], (2, 3)).tolist()
        if h * w < 6:
            continue
        spots = {
            sample.codes[y : y + h, x : x + w].tobytes(): (y, x)
            for y in range(sample.codes.shape[0] - h + 1)
            for x in range(sample.codes.shape[1] - w + 1)
        }
        # A window of 12 random codes is hardly in two samples.
        assert sum(found[window] for window in spots) == 6
        places |= {spot for window, spot in spots.items() if found[window]}
    assert len(places) >= 17  # of 20, the last of them only in the largest samples


def test_the_window_of_channels_is_the_first(vocabulary, tmp_path):
    header = Header(tokenizer="t", tokenizer_name="t", codebook_sizes=(6, 6), modality="audio")
    stereo = Sample(np.stack([np.zeros((30, 2), int), np.ones((30, 2), int)], 1))
    write_manifest(tmp_path, header, [write_shard(tmp_path / "shard", [stereo], header)])
    source = TokenSource(tmp_path, "sound", repeat=20, window=(4, 1))
    dataset = TokenDataset([source], 20, vocabulary, pack="single")
    for i in range(len(dataset)):
        (segment,) = vocabulary.parse(dataset[i]["tokens"])
        assert segment.parsed.codes.tolist() == [[[0, 0]]] * 4


def test_another_epoch_another_order(sources, vocabulary):
    dataset = TokenDataset(sources, 64, vocabulary)
    first = [dataset[i]["tokens"].tolist() for i in range(4)]
    dataset.set_epoch(1)
    assert [dataset[i]["tokens"].tolist() for i in range(4)] != first
    dataset.set_epoch(0)
    assert [dataset[i]["tokens"].tolist() for i in range(4)] == first
    assert dataset[-1]["tokens"].tolist() == dataset[len(dataset) - 1]["tokens"].tolist()
    with pytest.raises(IndexError):
        dataset[len(dataset)]
    with pytest.raises(ValueError, match="negative"):
        dataset.set_epoch(-1)


def test_a_copy_in_another_process_is_the_same(sources, vocabulary):
    dataset = TokenDataset(sources, 64, vocabulary, seed=9)
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.fingerprint == dataset.fingerprint
    for i in (0, 5, len(dataset) - 1):
        for name, values in dataset[i].items():
            np.testing.assert_array_equal(copy[i][name], values)


def test_any_order_of_reading_gives_the_same(sources, vocabulary):
    dataset = TokenDataset(sources, 100, vocabulary)
    straight = [dataset[i]["tokens"].tolist() for i in range(len(dataset))]
    order = np.random.default_rng(0).permutation(len(dataset)).tolist()
    assert [dataset[i]["tokens"].tolist() for i in order] == [straight[i] for i in order]


def test_a_parallel_layout(folders):
    layout = PRESETS["musicgen"]((6, 6, 4))
    dataset = TokenDataset([TokenSource(folders["sound"])], 32, layout, shuffle=False)
    rows = np.concatenate([dataset[i]["tokens"] for i in range(len(dataset))])
    reader = TokenReader(folders["sound"])
    expected = np.concatenate([layout.tokens(sample.codes) for sample in reader])
    assert rows.shape[1] == 3
    np.testing.assert_array_equal(rows[: len(expected)], expected)


def damage(folder: Path, where: str) -> None:
    """Flip a bit of sample 2 in the first shard: in its codes or in its shape."""
    path = folder / "shard-0.safetensors"
    tensors = load_file(path)
    data = bytearray(path.read_bytes())
    name = "tokens" if where == "codes" else "shape"
    start = bytes(data).index(tensors[name].tobytes())
    if where == "codes":
        start += int(tensors["offsets"][2]) * tensors["tokens"].itemsize
        data[start] ^= 1
    else:
        data[start + 2 * tensors["shape"][0].nbytes + 1] ^= 0x40
    path.write_bytes(data)


@pytest.mark.parametrize("where", ["codes", "shape"])
def test_a_damaged_sample_costs_itself(folders, vocabulary, tmp_path, where):
    shutil.copytree(folders["photo"], tmp_path / "photos")
    damage(tmp_path / "photos", where)
    whole, broken = (
        TokenSource(folder, "photo") for folder in (folders["photo"], tmp_path / "photos")
    )
    options = {"pack": "single", "shuffle": False}
    expected = documents_of(TokenDataset([whole], 400, vocabulary, **options))
    dataset = TokenDataset([broken], 400, vocabulary, **options)
    assert dataset.account(0).damaged == (where == "shape")
    if where == "codes":
        with pytest.raises(DataError, match="sample 2"):
            documents_of(dataset)
        dataset = TokenDataset([broken], 400, vocabulary, damaged="pad", **options)
        with pytest.warns(DamagedSampleWarning, match="sample 2"):
            found = documents_of(dataset)
    else:
        found = documents_of(dataset)
    assert found == expected[:2] + expected[3:]


def test_refused(folders, vocabulary, tmp_path):
    photo = TokenSource(folders["photo"], "photo")
    fixed = Vocabulary.build({"photo": ("flat", (8, 5), (4, 4))})
    bare = Vocabulary.build({"photo": ("raster", (8, 5))}, text_size=0)
    for message, source, using, options in (
        ("no layout 'video'", replace(photo, layout="video"), vocabulary, {}),
        ("codebook sizes", replace(photo, layout="sound"), vocabulary, {}),
        ("repeat", replace(photo, repeat=0.0), vocabulary, {}),
        ("samples has none", replace(photo, repeat=1e-9), vocabulary, {}),
        ("repeat must be positive, at most", replace(photo, repeat=1e300), vocabulary, {}),
        ("seed must be an integer", photo, vocabulary, {"seed": -1}),
        ("window", replace(photo, window=(3,)), vocabulary, {}),
        ("window", replace(photo, window=(0, 3)), vocabulary, {}),
        ("inputs of one size", photo, fixed, {}),
        ("captions need", replace(photo, caption=str), bare, {}),
        ("damaged must be", photo, vocabulary, {"damaged": "skip"}),
        ("pack must be", photo, vocabulary, {"pack": "loose"}),
    ):
        with pytest.raises(ValueError, match=message):
            TokenDataset([source], 64, using, **options)
    with pytest.raises(DataError, match="no manifest"):
        TokenDataset([replace(photo, path=tmp_path)], 64, vocabulary)


def test_a_caption_that_changes_is_noticed(folders, vocabulary):
    calls: Counter[str] = Counter()

    def fickle(meta):
        calls[meta["source"]] += 1
        return "a" * calls[meta["source"]]

    dataset = TokenDataset([TokenSource(folders["photo"], "photo", caption=fickle)], 64, vocabulary)
    with pytest.raises(DataError, match="caption changed"):
        dataset[0]


def sounds(folder: Path, codes: list[int]) -> TokenSource:
    """Sounds of ten equal codes."""
    header = Header(tokenizer="t", tokenizer_name="t", codebook_sizes=(64,), modality="audio")
    folder.mkdir()
    samples = [Sample(np.full((10, 1, 1), code)) for code in codes]
    write_manifest(folder, header, [write_shard(folder / "shard", samples, header)])
    return TokenSource(folder)


def test_the_fingerprint_is_of_the_content(tmp_path):
    layout = PRESETS["delay"]((64,))
    first = sounds(tmp_path / "first", [1, 2, 3])
    same = sounds(tmp_path / "same", [1, 2, 3])
    other = sounds(tmp_path / "other", [1, 2, 4])
    prints = [TokenDataset([s], 16, layout).fingerprint for s in (first, same, other)]
    assert prints[0] == prints[1] != prints[2]


def test_a_source_that_is_never_visited_is_told(tmp_path):
    layout = PRESETS["delay"]((64,))
    many = sounds(tmp_path / "many", [1, 2, 3])
    one = replace(sounds(tmp_path / "one", [1]), repeat=0.4)
    with pytest.raises(ValueError, match="one: an epoch of"):
        TokenDataset([many, one], 16, layout)
    with pytest.raises(ValueError, match="no sources"):
        TokenDataset([], 16, layout)


def test_damage_everywhere_is_told(tmp_path):
    source = sounds(tmp_path / "many", [1, 2, 3])
    (tmp_path / "many" / "shard").unlink()
    with pytest.raises(DataError, match="all samples are damaged"):
        TokenDataset([source], 16, PRESETS["delay"]((64,)), damaged="pad")
