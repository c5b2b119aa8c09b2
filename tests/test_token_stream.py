"""Batches for torch: nothing twice, nothing missing, whatever ranks, workers and interruptions."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from vqtok import SequenceLayout, TokenDataset, TokenSource, TokenStream
from vqtok.tokens import Header, Sample, write_manifest, write_shard
from vqtok.tokens.sequences import CodebookTokens

COUNT = 61


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sample i is a sound of 10 to 15 codes i."""
    folder = tmp_path_factory.mktemp("tokens")
    header = Header(tokenizer="t", tokenizer_name="t", codebook_sizes=(COUNT,), modality="audio")
    samples = [Sample(np.full((10 + i % 6, 1, 1), i)) for i in range(COUNT)]
    write_manifest(folder, header, [write_shard(folder / "shard", samples, header)])
    return folder


def make(folder, pack="single", repeat=1.0, seed=0):
    layout = SequenceLayout(codebooks=(CodebookTokens(COUNT, 0),), dims=(None, 1))
    source = TokenSource(folder, repeat=repeat)
    return TokenDataset([source], 15, layout, pack=pack, seed=seed)


def rows(batches):
    """All sequences of batches as tuples."""
    return [tuple(row.tolist()) for batch in batches for row in batch["tokens"]]


def load(stream, workers):
    return DataLoader(stream, batch_size=None, num_workers=workers)


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (1, 2), (3, 0), (3, 2)])
def test_every_sequence_once(folder, ranks, workers):
    dataset = make(folder)
    streams = [TokenStream(dataset, 4, epochs=1, rank=r, ranks=ranks) for r in range(ranks)]
    batches = [list(load(stream, workers)) for stream in streams]
    assert {len(each) for each in batches} == {len(streams[0])} == {-(-COUNT // (4 * ranks))}
    found = [row for each in batches for row in rows(each)]
    segments = [tuple(row.tolist()) for each in batches for b in each for row in b["segments"]]
    real = [row for row, segment in zip(found, segments, strict=True) if any(segment)]
    assert sorted(row[0] for row in real) == list(range(COUNT))
    assert len(found) == len(streams[0]) * 4 * ranks


def test_ranks_take_turns_in_one_order(folder):
    whole = rows(TokenStream(make(folder), 6, epochs=1, rank=0, ranks=1))
    parts = [rows(TokenStream(make(folder), 3, epochs=1, rank=r, ranks=2)) for r in range(2)]
    both = [row for s in range(0, len(parts[0]), 3) for part in parts for row in part[s : s + 3]]
    assert both == whole


@pytest.mark.parametrize("pack", ["split", "whole"])
def test_workers_change_nothing(folder, pack):
    straight = rows(take(iter(TokenStream(make(folder, pack), 4, rank=0, ranks=1)), 18))
    stream = TokenStream(make(folder, pack), 4, rank=0, ranks=1)
    assert rows(take(iter(load(stream, 2)), 9)) == straight[:36]
    assert rows(take(iter(stream), 9)) == straight[:36]
    assert rows(take(iter(load(stream, 2)), 9)) == straight[36:]


def test_a_stream_goes_from_epoch_to_epoch(folder):
    dataset = make(folder, repeat=0.5)
    counts = [dataset.sequences(epoch) for epoch in range(4)]
    stream = TokenStream(dataset, 1, rank=0, ranks=1)
    found = [row[0] for row in rows(take(iter(stream), sum(counts)))]
    first, second = found[: sum(counts[:2])], found[sum(counts[:2]) :]
    assert len(set(first)) == len(set(second)) == sum(counts[:2])
    assert first != second
    with pytest.raises(TypeError, match="endless"):
        len(stream)


def test_the_last_step_can_be_left_out(folder):
    stream = TokenStream(make(folder), 4, epochs=1, drop_last=True, rank=1, ranks=2)
    batches = list(stream)
    assert len(batches) == len(stream) == COUNT // 8
    assert all((batch["segments"] > 0).any(dim=1).all() for batch in batches)


def test_passes_can_be_set(folder):
    dataset = make(folder)
    passes = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        passes.append(rows(TokenStream(dataset, 4, epochs=1, rank=0, ranks=1)))
    assert passes[0] != passes[1]
    stream = TokenStream(dataset, 4, epochs=1, rank=0, ranks=1)
    assert rows(stream) == rows(stream) == passes[1]


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata calls it
@pytest.mark.parametrize(("workers", "done"), [(0, 0), (0, 5), (0, 40), (2, 1), (2, 6), (2, 17)])
def test_resume_in_the_middle(folder, workers, done):
    """With a StatefulDataLoader, as a checkpoint would."""
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    straight = rows(take(iter(TokenStream(make(folder), 4, rank=1, ranks=2)), done + 6))

    def loader():
        stream = TokenStream(make(folder), 4, rank=1, ranks=2)
        return stateful.StatefulDataLoader(stream, batch_size=None, num_workers=workers)

    first = loader()
    before = take(iter(first), done)
    state = first.state_dict()
    second = loader()
    second.load_state_dict(state)
    assert rows(before) + rows(take(iter(second), 6)) == straight


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
def test_what_workers_read_ahead_is_not_lost(folder):
    """An iteration that is left in the middle, in workers that stay for the next one."""
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    whole = rows(TokenStream(make(folder), 4, epochs=1, rank=0, ranks=1))
    stream = TokenStream(make(folder), 4, epochs=1, rank=0, ranks=1)
    options = {"batch_size": None, "num_workers": 2, "persistent_workers": True}
    loader = DataLoader(stream, **options)
    take(iter(loader), 3)
    assert rows(loader) == rows(loader) == whole
    first = stateful.StatefulDataLoader(stream, **options)
    take(iter(first), 3)
    second = stateful.StatefulDataLoader(stream, **options)
    second.load_state_dict(first.state_dict())
    assert rows(second) == whole[12:]
    assert rows(second) == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_by_counting(folder, workers):
    """With torch's own DataLoader."""
    straight = rows(take(iter(TokenStream(make(folder), 4, rank=0, ranks=1)), 30))
    stream = TokenStream(make(folder), 4, rank=0, ranks=1)
    found = rows(take(iter(load(stream, workers)), 7))
    state = json.loads(json.dumps(TokenStream(make(folder), 4, rank=0, ranks=1).state_dict(7)))
    stream = TokenStream(make(folder), 4, rank=0, ranks=1)
    stream.load_state_dict(state)
    found += rows(take(iter(stream), 9))
    again = TokenStream(make(folder), 4, rank=0, ranks=1)
    again.load_state_dict(stream.state_dict())
    assert found + rows(take(iter(load(again, workers)), 14)) == straight


def test_resume_with_other_ranks_and_batches(folder):
    straight = rows(take(iter(TokenStream(make(folder), 12, rank=0, ranks=1)), 6))
    stream = TokenStream(make(folder), 4, rank=2, ranks=3)
    take(iter(stream), 2)
    found = straight[:24]
    parts = []
    for rank in range(2):
        other = TokenStream(make(folder), 6, rank=rank, ranks=2)
        other.load_state_dict(stream.state_dict())
        parts.append(rows(take(iter(other), 4)))
    for step in range(4):
        found += [row for part in parts for row in part[6 * step : 6 * step + 6]]
    assert found == straight


def test_states_of_other_data_are_refused(folder):
    state = TokenStream(make(folder), 4).state_dict()
    for other in (make(folder, seed=1), make(folder, "split"), make(folder, repeat=2)):
        with pytest.raises(ValueError, match="other data"):
            TokenStream(other, 4).load_state_dict(state)
    stream = TokenStream(make(folder), 4)
    with pytest.raises(ValueError, match="worker 0 of 2"):
        stream.load_state_dict({**state, "worker": [0, 2]})
    for other in ({}, None, {"version": 1}, {**state, "version": 2}):
        with pytest.raises(ValueError, match="not the state"):
            stream.load_state_dict(other)


def test_epochs_are_counted_once(folder, monkeypatch):
    """A stream that is many epochs old is as fast as a new one."""
    dataset = make(folder)
    counted = []
    monkeypatch.setattr(dataset, "_length_rows", spy(dataset._length_rows, counted))
    take(iter(TokenStream(dataset, COUNT, rank=0, ranks=1)), 12)
    assert sorted(counted) == list(range(12))


def spy(function, calls):
    """``function`` with its first arguments put down in ``calls``."""

    def called(first, *rest):
        calls.append(first)
        return function(first, *rest)

    return called


def test_states_of_nonsense_are_refused(folder):
    stream = TokenStream(make(folder), 4, rank=0, ranks=1)
    with pytest.raises(ValueError, match="batches must not be negative"):
        stream.state_dict(-1)
    for name in ("epoch", "step", "sequence", "batches"):
        for wrong in (-1, 1.5, "1", None, True):
            with pytest.raises(ValueError, match=f"{name} is {wrong!r}"):
                stream.load_state_dict({**stream.state_dict(), name: wrong})
    assert rows(take(iter(stream), 3)) == rows(
        take(iter(TokenStream(make(folder), 4, rank=0, ranks=1)), 3)
    )


def test_ranks_of_the_environment(folder, monkeypatch):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    stream = TokenStream(make(folder), 4)
    assert (stream.rank, stream.ranks) == (2, 4)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"rank": 2, "ranks": 2}, {"epochs": 0}])
def test_refused(folder, options):
    with pytest.raises(ValueError, match="at least 1"):
        TokenStream(make(folder), **{"batch_size": 4, **options})


def test_the_dataset_itself_in_a_loader(folder):
    dataset = make(folder)
    batches = list(DataLoader(dataset, batch_size=8, num_workers=2))
    assert rows(batches) == rows(TokenStream(dataset, len(dataset), epochs=1, rank=0, ranks=1))


def test_tensors(folder):
    batch = next(iter(TokenStream(make(folder, "whole"), 4)))
    assert batch["tokens"].shape == batch["segments"].shape == batch["positions"].shape == (4, 15)
    assert batch["tokens"].dtype == torch.int64
    assert batch["segments"].dtype == torch.int32
