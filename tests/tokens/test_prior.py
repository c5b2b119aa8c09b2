"""Priors: the native code against numpy on every instruction set, files, and what is refused."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vqtok.errors import DataError
from vqtok.ops import native, prior_numpy
from vqtok.tokens import Prior
from vqtok.tokens.models import Alone, grid_of

Tensors = dict[str, NDArray[Any]]


def _layer(rng: np.random.Generator, name: str, out: int, width: int) -> Tensors:
    return {
        f"{name}.weight": rng.integers(-127, 128, (out, width)).astype(np.int8),
        f"{name}.bias": rng.integers(-20_000, 20_000, out).astype(np.int32),
    }


def toy_tensors(sizes: tuple[int, ...], groups: int, seed: int = 0) -> Tensors:
    """Random networks of two hidden layers of odd widths; two levels where the codebook allows."""
    rng = np.random.default_rng(seed)
    tensors: Tensors = {}
    for q, size in enumerate(sizes):
        width = 5 + 3 * q
        tensors[f"embedding.{q}"] = rng.integers(0, 128, (size + 1, width)).astype(np.uint8)
        slots = [(q, 0, -1), (q, -1, 0), (q, -1, 1), (q, -2, 3)]
        slots += [(c, rng.integers(-3, 4), rng.integers(-3, 4)) for c in range(q)]
        slots += [(c, 0, 0) for c in range(q)]
        tensors[f"{q}.context"] = np.array(slots, np.int32)
        inputs = sum(5 + 3 * c for c, *_ in slots)
        tensors |= _layer(rng, f"{q}.hidden.0", 37, inputs)
        tensors |= _layer(rng, f"{q}.hidden.1", 18 + q, 37)
        tensors |= _layer(rng, f"{q}.output", size, 18 + q)
        shifts = [11, 10, 7]
        count = min(groups, size)
        if count > 1:
            count = -(-size // -(-size // count))  # without an empty group at the end
            tensors |= _layer(rng, f"{q}.groups", count, 18 + q)
            tensors[f"{q}.order"] = rng.permutation(size).astype(np.int32)
            shifts.append(8)
        tensors[f"{q}.shifts"] = np.array(shifts, np.int32)
    return tensors


def toy_prior(sizes: tuple[int, ...], groups: int = 1, modality: str = "image") -> Prior:
    """A prior for a tokenizer of fingerprint "70" * 32."""
    return Prior(
        toy_tensors(sizes, groups),
        codebook_sizes=sizes,
        modality=modality,
        tokenizer="70" * 32,
        training={"steps": 7},
    )


needs_native = pytest.mark.skipif(not native.native_available(), reason="no native module")

CASES = [
    # codebook sizes, groups, dims
    ((5, 300, 16), 1, (4, 6)),
    ((5, 300, 16), 7, (7, 3)),
    ((1, 2), 1, (1, 1)),
    ((1024,), 32, (3, 40)),
    ((64, 64), 1, (50, 1)),
    ((64, 64), 4, (9, 2)),
    ((33, 17, 40), 1, (70, 5)),
]


def some_codes(sizes: tuple[int, ...], dims: tuple[int, ...], seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, size, dims) for size in sizes], -1)


def planes_of(codes: Any) -> Any:
    return np.ascontiguousarray(
        np.moveaxis(codes, -1, 0).reshape(codes.shape[-1], *grid_of(codes.shape[:-1])), np.uint32
    )


def encoded_alone(prior: Prior, codes: Any) -> list[bytes]:
    """Streams as format version 1 has them."""
    return Alone(prior.networks).encode_planes(planes_of(codes))


def decoded_alone(prior: Prior, streams: list[bytes], dims: tuple[int, ...]) -> Any:
    planes = np.zeros((len(streams), *grid_of(dims)), np.uint32)
    for q, stream in enumerate(streams):
        Alone(prior.networks).decode_plane(planes, q, stream)
    return np.moveaxis(planes, 0, -1).reshape(*dims, len(streams))


def in_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "load", lambda: None)


@pytest.mark.parametrize(("sizes", "groups", "dims"), CASES)
def test_every_instruction_set_gives_the_bytes_of_numpy(sizes, groups, dims, monkeypatch) -> None:
    prior, codes = toy_prior(sizes, groups), some_codes(sizes, dims)
    with monkeypatch.context() as patch:
        in_numpy(patch)
        streams, alone = prior.encode(codes), encoded_alone(prior, codes)
        costs = prior.costs(codes)
        np.testing.assert_array_equal(prior.decode(streams, dims), codes)
        np.testing.assert_array_equal(decoded_alone(prior, alone, dims), codes)
    for isa in native.supported_isas():
        with native.force_isa(isa):
            assert prior.encode(codes) == streams, isa
            assert encoded_alone(prior, codes) == alone, isa
            np.testing.assert_array_equal(prior.decode(streams, dims), codes, isa)
            np.testing.assert_array_equal(decoded_alone(prior, alone, dims), codes, isa)
            np.testing.assert_array_equal(prior.costs(codes), costs, isa)


@needs_native
@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_nothing(monkeypatch, threads: int) -> None:
    prior, codes = toy_prior((50, 60, 70), 4), some_codes((50, 60, 70), (20, 30))
    streams = prior.encode(codes)
    monkeypatch.setattr(native, "num_threads", lambda: threads)
    assert prior.encode(codes) == streams
    np.testing.assert_array_equal(prior.decode(streams, (20, 30)), codes)


def test_costs_are_what_the_streams_take() -> None:
    for groups in (1, 8):
        prior, codes = toy_prior((200, 300), groups), some_codes((200, 300), (16, 24))
        for q, stream in enumerate(encoded_alone(prior, codes)):
            assert 0 <= len(stream) * 8 - prior.costs(codes)[..., q].sum() < 9


def test_costs_are_those_of_a_distribution() -> None:
    # over all values of the last code, whose cost nothing else depends on
    for groups in (1, 5):
        prior, codes = toy_prior((40,), groups), some_codes((40,), (2, 3))
        total = 0.0
        for code in range(40):
            codes[-1, -1] = code
            total += 2.0 ** -prior.costs(codes)[-1, -1, 0]
        assert total == pytest.approx(1, abs=1e-12)


def test_the_arithmetic_is_that_of_the_format() -> None:
    """One network by hand: contexts, borders, shifts, clipping and weights."""
    tensors = {
        "embedding.0": np.array([[3], [100], [7]], np.uint8),
        "0.context": np.array([[0, 0, -1], [0, -1, 0]], np.int32),
        "0.hidden.0.weight": np.array([[2, 1], [-1, -1]], np.int8),
        "0.hidden.0.bias": np.array([10, 30], np.int32),
        "0.output.weight": np.array([[4, 0], [0, 100]], np.int8),
        "0.output.bias": np.array([-5, 0], np.int32),
        "0.shifts": np.array([1, 3], np.int32),
    }
    prior = Prior(tensors, codebook_sizes=(2,), modality="image", tokenizer="f")
    codes = np.array([[0, 1], [1, 1]])[..., None]
    wanted = []
    for left, up, code in ((7, 7, 0), (3, 7, 1), (7, 3, 1), (100, 100, 1)):
        hidden = [(2 * left + up + 10 + 1) >> 1, (30 - left - up + 1) >> 1]
        hidden = [min(max(value, 0), 127) for value in hidden]
        outputs = [4 * hidden[0] - 5, 100 * hidden[1]]
        below = [(max(outputs) - value) >> 3 for value in outputs]
        weights = [1 + (int(2 ** (19 - (d & 31) / 32)) >> (d >> 5)) for d in below]
        wanted.append(np.log2(sum(weights) / weights[code]))
    np.testing.assert_allclose(prior.costs(codes).ravel(), wanted, rtol=1e-12)


def test_the_powers_are_rounded_down() -> None:
    table = prior_numpy.powers()
    assert table[0] == 1 << 19
    for i, power in enumerate(table.tolist()):
        assert power**32 <= 1 << (608 - i) < (power + 1) ** 32


def test_sums_cannot_overflow() -> None:
    """The largest networks and values that are allowed."""
    tensors = toy_tensors((2,), 1)
    tensors["embedding.0"] = np.full((3, 64), 127, np.uint8)
    tensors["0.context"] = np.array([(0, -1, 0)] * 64, np.int32)
    tensors["0.hidden.0.weight"] = np.full((500, 4096), 127, np.int8)
    tensors["0.hidden.0.bias"] = np.full(500, 1 << 30, np.int32)
    tensors["0.hidden.1.weight"] = np.full((4096, 500), 127, np.int8)
    tensors["0.hidden.1.weight"][::2] = -127
    tensors["0.hidden.1.bias"] = np.zeros(4096, np.int32)
    tensors["0.output.weight"] = np.array([[127] * 4096, [-127] * 4096], np.int8)
    tensors["0.output.bias"] = np.array([1 << 30, -1 << 30], np.int32)
    tensors["0.shifts"] = np.array([24, 1, 0], np.int32)
    prior = Prior(tensors, codebook_sizes=(2,), modality="audio", tokenizer="f")
    codes = np.array([1, 0])[:, None, None]
    weights = [1, (1 << 19) + 1]
    costs = [np.log2(sum(weights) / weights[code]) for code in (0, 1)]
    np.testing.assert_allclose(prior.costs(codes).ravel(), costs)
    np.testing.assert_array_equal(prior.decode(prior.encode(codes), (2, 1)), codes)


def test_the_first_codebooks_alone() -> None:
    prior, codes = toy_prior((50, 60, 70), 4), some_codes((50, 60, 70), (5, 6))
    streams = prior.encode(codes)
    for count in (1, 2, 3):
        assert prior.encode(codes[..., :count]) == streams[:count]
        np.testing.assert_array_equal(prior.decode(streams[:count], (5, 6)), codes[..., :count])


@given(st.binary(max_size=80), st.sampled_from([1, 6]), st.booleans())
@settings(deadline=None, max_examples=60)
def test_any_bytes_decode_to_codes_in_range(data: bytes, groups: int, mixed: bool) -> None:
    prior = toy_prior((37, 300), groups)
    planes, plain = np.zeros((2, 2, 3, 7), np.uint32)
    whole = prior.networks.decode(planes, 1, data, mixed=mixed)
    decoder = prior_numpy.MixedDecoder if mixed else prior_numpy.Decoder
    assert whole == (not decoder(prior.networks, plain, 1, data).run().has_rest)
    np.testing.assert_array_equal(planes, plain)
    assert planes[1].max() < 300


def test_what_the_prior_does_not_expect_is_learned() -> None:
    """A texture that no network knows, and codes that it knows better than any counter."""
    prior = toy_prior((64,), 4)
    tiles = np.tile(np.random.default_rng(1).integers(0, 64, (4, 5)), (16, 16))[..., None]
    assert len(prior.encode(tiles)[0]) < len(encoded_alone(prior, tiles)[0]) / 2
    likely = prior.sample((64, 80), 1, np.random.default_rng(2))
    assert len(prior.encode(likely)[0]) < len(encoded_alone(prior, likely)[0]) * 1.02
    few = likely[:3, :4]
    assert len(prior.encode(few)[0]) <= len(encoded_alone(prior, few)[0]) + 2


def test_samples_follow_the_prior() -> None:
    prior = toy_prior((4,))
    rng = np.random.default_rng(0)
    # the first code has no neighbours: always the same distribution
    drawn = [int(prior.sample((1, 1), 1, rng)[0, 0, 0]) for _ in range(3000)]
    costs = [float(prior.costs(np.full((1, 1, 1), code))[0, 0, 0]) for code in range(4)]
    np.testing.assert_allclose(
        np.bincount(drawn, minlength=4) / 3000, 2.0 ** -np.array(costs), atol=0.03
    )


def test_files_come_back(tmp_path: Path) -> None:
    prior = toy_prior((5, 300), 4)
    path = tmp_path / "prior.safetensors"
    prior.save(path)
    found = Prior.load(path)
    assert found.digest == prior.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found.codebook_sizes, found.modality) == ((5, 300), "image")
    assert (found.tokenizer, found.training) == ("70" * 32, {"steps": 7})
    codes = some_codes((5, 300), (4, 4))
    assert found.encode(codes) == prior.encode(codes)
    assert found.to_bytes() == prior.to_bytes() == path.read_bytes()


def replaced(name: str, value: Any) -> Any:
    return lambda tensors: tensors.update({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("0.context"), "'0.context' is missing"),
        (lambda t: t.pop("embedding.0"), "'embedding.0' is missing"),
        (lambda t: t.pop("1.shifts"), "'1.shifts' is missing"),
        (lambda t: t.pop("0.order"), "hidden layers|not part|missing"),
        (replaced("0.spare", np.zeros(3)), "'0.spare' is not part of a prior"),
        (replaced("0.context", np.array([[0, 0, 1]], np.int32)), r"cannot see codebook 0 at"),
        (replaced("0.context", np.array([[0, -1, 2]], np.int32)), r"cannot see codebook 0 at"),
        (replaced("0.context", np.array([[1, -1, 0]], np.int32)), r"cannot see codebook 1 at"),
        (replaced("0.context", np.array([[-1, -1, 0]], np.int32)), r"cannot see codebook -1"),
        (replaced("0.context", np.array([[0, -9, 0]], np.int32)), r"at \(-9, 0\)"),
        (replaced("0.context", np.zeros((0, 3), np.int32)), r"expected int32 \[1 to"),
        (replaced("0.context", np.array([[0, -1, 0]] * 65, np.int32)), "65 contexts"),
        (replaced("embedding.0", np.full((41, 5), 128, np.uint8)), "above 127"),
        (replaced("embedding.0", np.zeros((40, 5), np.uint8)), r"expected uint8 \[41"),
        (replaced("0.output.weight", np.full((40, 18), -128, np.int8)), "out of range"),
        (replaced("0.output.bias", np.full(40, 1 << 30 | 1, np.int32)), "out of range"),
        (replaced("0.output.bias", np.zeros(39, np.int32)), r"expected int32 \[40\]"),
        (replaced("0.shifts", np.array([0, 10, 7, 8], np.int32)), "shifts of network 0"),
        (replaced("0.shifts", np.array([25, 10, 7, 8], np.int32)), "shifts of network 0"),
        (replaced("0.shifts", np.array([7, 8], np.int32)), "0 hidden layers"),
        (replaced("0.shifts", np.array([[7, 8]], np.int32)), "'0.shifts' is int32"),
        (replaced("0.order", np.zeros(40, np.int32)), "not a permutation"),
        (replaced("0.order", np.arange(1, 41, dtype=np.int32)), "not a permutation"),
    ],
)
def test_malformed_tensors_are_refused(change, message: str, tmp_path: Path) -> None:
    tensors = toy_tensors((40, 30), 4)
    change(tensors)
    with pytest.raises(ValueError, match=message):
        Prior(tensors, codebook_sizes=(40, 30), modality="image", tokenizer="f")


def test_too_many_outcomes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"chooses among 5000 codes.*cut them into groups"):
        toy_prior((5000,), 1)
    assert toy_prior((5000,), 40).costs(np.zeros((1, 1, 1), np.int64)) > 0


def test_too_much_work_for_a_code_is_refused() -> None:
    tensors = toy_tensors((40,), 1)
    width = len(tensors["0.context"]) * 5
    tensors["0.hidden.0.weight"] = np.zeros((4000, width), np.int8)
    tensors["0.hidden.0.bias"] = np.zeros(4000, np.int32)
    tensors["0.hidden.1.weight"] = np.zeros((1024, 4000), np.int8)
    tensors["0.hidden.1.bias"] = np.zeros(1024, np.int32)
    tensors["0.output.weight"] = np.zeros((40, 1024), np.int8)
    with pytest.raises(ValueError, match=r"multiplies 4,\d+,\d+ times for a code, at most 4,194"):
        Prior(tensors, codebook_sizes=(40,), modality="image", tokenizer="f")


def test_many_narrow_groups_that_take_much_memory_are_refused() -> None:
    size, count = 4096, 128  # 8 MB of tensors, 135 million padded weights
    tensors: Tensors = {"embedding.0": np.zeros((size + 1, 1), np.uint8)}
    zeros, order = np.zeros((size, 1), np.int8), np.arange(size, dtype=np.int32)
    for q in range(count):
        tensors |= {
            f"{q}.context": np.array([[0, 0, 0 if q else -1]], np.int32),
            f"{q}.hidden.0.weight": zeros[:1],
            f"{q}.hidden.0.bias": np.zeros(1, np.int32),
            f"{q}.output.weight": zeros,
            f"{q}.output.bias": np.zeros(size, np.int32),
            f"{q}.groups.weight": zeros,
            f"{q}.groups.bias": np.zeros(size, np.int32),
            f"{q}.order": order,
            f"{q}.shifts": np.array([1, 0, 0], np.int32),
        }
    with pytest.raises(
        ValueError, match="over 134,217,728 weights once rows and columns are padded"
    ):
        Prior(tensors, codebook_sizes=(size,) * count, modality="image", tokenizer="x")


def test_groups_that_stay_empty_are_refused() -> None:
    tensors = toy_tensors((40,), 4)
    tensors["0.groups.weight"] = np.zeros((30, 18), np.int8)
    tensors["0.groups.bias"] = np.zeros(30, np.int32)
    with pytest.raises(ValueError, match="40 codes do not fill the 30 groups"):
        Prior(tensors, codebook_sizes=(40,), modality="image", tokenizer="f")


def forged(prior: Prior, change) -> bytes:
    data = prior.to_bytes()
    length = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + length])
    value = json.loads(head["__metadata__"]["vqtok"])
    change(value)
    head["__metadata__"]["vqtok"] = json.dumps(value)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(format="x"), "not a prior of vqtok"),
        (lambda v: v.update(format_version=2), "install a newer vqtok"),
        (lambda v: v.pop("modality"), "lacks 'modality'"),
        (lambda v: v.update(modality="smell"), "smell"),
        (lambda v: v.update(tokenizer=3), "malformed"),
        (lambda v: v.update(codebook_sizes=[5]), "x.safetensors: "),
        (lambda v: v.update(codebook_sizes=[]), "codebook_sizes must be"),
        (lambda v: v.update(codebook_sizes=[True, 2]), "codebook_sizes must be"),
        (lambda v: v.update(codebook_sizes=7), "x.safetensors: "),
        (lambda v: v.update(training=7), "x.safetensors: "),
    ],
)
def test_malformed_headers_are_refused(tmp_path: Path, change, message: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(forged(toy_prior((5, 300)), change))
    with pytest.raises(DataError, match=message):
        Prior.load(path)


def test_truncated_and_flipped_files_are_refused_or_sound(tmp_path: Path) -> None:
    data = toy_prior((5, 30)).to_bytes()
    path = tmp_path / "x.safetensors"
    for size in (0, 7, 8, 100, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(DataError, match=r"x\.safetensors: "):
            Prior.load(path)
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(data), 150).tolist():
        changed = bytearray(data)
        changed[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        with contextlib.suppress(DataError):  # else weights have changed, which may be anything
            Prior.load(path).sample((2, 2), 2, rng)
    with pytest.raises(DataError, match="No such file"):
        Prior.load(tmp_path / "none")


def test_codes_that_may_not_be_written_to(monkeypatch) -> None:
    prior, codes = toy_prior((9,)), some_codes((9,), (4, 5)).astype(np.uint32)
    codes.setflags(write=False)
    streams = prior.encode(codes)
    in_numpy(monkeypatch)
    assert prior.encode(codes) == streams


@pytest.mark.parametrize("count", [0, 3, 1000])
def test_codebooks_that_the_prior_has_not_are_refused(count: int) -> None:
    prior = toy_prior((9, 9))
    with pytest.raises(ValueError, match=f"of 2 codebooks, {count} are asked for"):
        prior.decode([b"abc"] * count, (2, 2))
    with pytest.raises(ValueError, match=f"of 2 codebooks, {count} are asked for"):
        prior.sample((2, 2), count, np.random.default_rng(0))


def test_wrong_codes_are_refused() -> None:
    prior = toy_prior((5, 300))
    with pytest.raises(ValueError, match=r"codes of codebook 0 span \[0, 5\], K is 5"):
        prior.encode(np.array([[[5, 0]], [[0, 0]]]))
    with pytest.raises(ValueError, match="q at most 2"):
        prior.costs(np.zeros((2, 2, 3), np.int64))
    (stream, _) = prior.encode(np.zeros((4, 4, 2), np.int64))
    with pytest.raises(ValueError, match="codebook 0 has bytes left over"):
        prior.decode([stream + b"\0"], (4, 4))
