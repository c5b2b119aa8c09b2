"""A damaged file: everything damaged is found, nothing undamaged is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vqtok.errors import DataError
from vqtok.tokens import (
    Header,
    Sample,
    TokenReader,
    read_manifest,
    verify,
    write_manifest,
    write_shard,
)


def readable(reader: TokenReader, samples: list[Sample]) -> list[bool]:
    """Which samples come back; whatever comes back must be right."""
    result = []
    for index, sample in enumerate(samples):
        try:
            found = reader[index]
        except DataError:
            result.append(False)
            continue
        np.testing.assert_array_equal(found.codes, sample.codes)
        assert found.meta == sample.meta
        result.append(True)
    return result


@pytest.fixture
def small(tmp_path: Path, header: Header) -> tuple[Path, list[Sample]]:
    header = replace(header, tokenizer="f", codebook_sizes=(5, 300))
    samples = [Sample(np.array([[[i, 7]], [[4, 299]]]), {"source": f"{i}.jpg"}) for i in range(3)]
    info = write_shard(tmp_path / "x.safetensors", samples, header)
    write_manifest(tmp_path, header, [info])
    return tmp_path, samples


def test_every_flipped_bit_is_found_and_costs_one_sample_at_most(small) -> None:
    folder, samples = small
    path = folder / "x.safetensors"
    sound = path.read_bytes()
    data = bytearray(sound)
    head = 8 + int.from_bytes(sound[:8], "little")
    # The head is the same in both tiers but for two words.
    for position in range(0 if b"plain" in sound[:head] else head, len(sound)):
        for bit in range(8):
            data[position] ^= 1 << bit
            path.write_bytes(data)
            problems = verify(folder)
            assert problems, f"bit {bit} of byte {position} flipped unnoticed"
            lost = readable(TokenReader(folder), samples).count(False)
            assert lost <= (0 if position < head else 1), f"bit {bit} of byte {position}"
            assert verify(path), f"bit {bit} of byte {position} unnoticed in the shard alone"
            data[position] ^= 1 << bit
    path.write_bytes(sound)
    assert verify(folder) == []


def test_damage_is_named(small) -> None:
    folder, samples = small
    path = folder / "x.safetensors"
    data = bytearray(path.read_bytes())
    data[data.index(b'{"source":"1.jpg"}') + 4] ^= 1
    path.write_bytes(data)
    assert readable(TokenReader(folder), samples) == [True, False, True]
    assert [problem.sample for problem in verify(folder)] == [None, 1]
    assert str(verify(path)[0]).startswith("x.safetensors: sample 1: its codes, shape or metadata")


def test_damage_in_a_later_codebook_spares_the_earlier_ones(small) -> None:
    folder, samples = small
    path = folder / "x.safetensors"
    data = bytearray(path.read_bytes())
    data[data.index(b'{"source":"0.jpg"}') - 1] ^= 1  # last codebook of the last sample
    path.write_bytes(data)
    reader = TokenReader(folder)
    with pytest.raises(DataError, match="sample 2"):
        reader[2]
    np.testing.assert_array_equal(reader.read(2, 1).codes, samples[2].codes[..., :1])
    assert reader.meta(2) == samples[2].meta


def test_a_lost_shard_loses_only_its_samples(dataset: Path, samples) -> None:
    (dataset / "a.safetensors").unlink()
    reader = TokenReader(dataset)
    np.testing.assert_array_equal(reader[3].codes, samples[3].codes)
    with pytest.raises(DataError, match=r"a\.safetensors: the file is missing"):
        reader[0]
    assert [str(problem)[:13] for problem in verify(dataset)] == ["a.safetensors"]


def test_a_truncated_shard_is_refused(dataset: Path) -> None:
    path = dataset / "b.safetensors"
    sound = path.read_bytes()
    for size in [*range(0, len(sound), 37), len(sound) - 1]:
        path.write_bytes(sound[:size])
        with pytest.raises(DataError, match=r"b\.safetensors"):
            TokenReader(dataset)[4]
        assert verify(dataset)
    path.write_bytes(sound + b"\0")
    with pytest.raises(DataError, match=r"the file at byte"):
        TokenReader(dataset)[4]


def test_a_shard_of_another_tokenizer_is_refused(dataset: Path, header: Header, samples) -> None:
    other = Header(tokenizer="other", tokenizer_name="n", codebook_sizes=header.codebook_sizes)
    write_shard(dataset / "b.safetensors", samples[3:], other)
    with pytest.raises(DataError, match="its header is not the manifest's"):
        TokenReader(dataset)[4]
    assert any("its header is not" in str(problem) for problem in verify(dataset))


def test_verify_compares_with_the_folder(dataset: Path, header: Header, samples) -> None:
    assert verify(dataset) == []
    write_shard(dataset / "c.safetensors", samples, header)
    (dataset / ("d.tmp." + "0" * 32)).touch()
    (dataset / "errors.jsonl").write_text("{}\n{\n")
    found = [str(problem) for problem in verify(dataset)]
    assert found[0].startswith("c.safetensors: a shard that the manifest does not list")
    assert "left over by a run that was killed" in found[1]
    assert found[2].startswith("errors.jsonl: 2 lines, the manifest counts 0")
    assert found[3].startswith("errors.jsonl: line 2 is not valid JSON")


@pytest.mark.parametrize("plan", ["7", "g" * 64, "A" * 64, "a" * 65, "a" * 64 + "\n"])
def test_a_malformed_plan_is_found(dataset: Path, plan: str) -> None:
    write_manifest(dataset, read_manifest(dataset).header, read_manifest(dataset).shards, plan=plan)
    (problem,) = verify(dataset)
    assert f"plan {plan!r} are malformed" in problem.message


def test_verify_counts_samples(dataset: Path) -> None:
    seen: list[int] = []
    verify(dataset, seen.append)
    assert sum(seen) == 5


def test_a_shard_that_cannot_be_opened(dataset: Path) -> None:
    (dataset / "a.safetensors").unlink()
    (dataset / "a.safetensors").mkdir()
    with pytest.raises(DataError, match=r"^a\.safetensors: cannot be read: Is a directory$"):
        TokenReader(dataset)[0]
