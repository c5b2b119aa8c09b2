"""Random orders that are computed: permutations, evenly spread; mixtures that add up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqtok.tokens.sequences.mixture import Mixture
from vqtok.tokens.sequences.shuffling import Shuffle


@given(st.integers(1, 3000), st.tuples(st.integers(0, 2**31), st.integers(0, 9)))
def test_every_place_goes_to_another(count, key):
    places = Shuffle(count, key)(np.arange(count))
    assert sorted(places.tolist()) == list(range(count))


def test_some_places_of_many():
    shuffle = Shuffle(10**12, (1,))
    some = np.random.default_rng(0).integers(0, 10**12, 1000)
    where = shuffle(some)
    assert where.min() >= 0
    assert where.max() < 10**12
    assert len(np.unique(where)) == len(np.unique(some))
    np.testing.assert_array_equal(shuffle(some[7:9]), where[7:9])  # alone as in company


@pytest.mark.parametrize("count", [2, 5, 6, 16])
def test_all_places_are_equally_likely(count):
    rounds = 1000
    table = np.zeros((count, count))
    follows = np.zeros((count, count))
    for key in range(rounds):
        order = Shuffle(count, (key, 5))(np.arange(count))
        table[np.arange(count), order] += 1
        follows[order[:-1], order[1:]] += 1
    expected = rounds / count
    chi2 = ((table - expected) ** 2 / expected).sum()
    freedom = (count - 1) ** 2
    assert chi2 < freedom + 5 * np.sqrt(2 * freedom) + 5
    pairs = follows[~np.eye(count, dtype=bool)]
    expected = rounds * (count - 1) / len(pairs)
    chi2 = ((pairs - expected) ** 2 / expected).sum()
    assert chi2 < len(pairs) + 5 * np.sqrt(2 * len(pairs)) + 5


@given(
    st.lists(st.tuples(st.integers(0, 20), st.sampled_from([0.3, 0.5, 1.0, 1.7, 3.0])), min_size=1),
    st.booleans(),
    st.integers(0, 99),
)
def test_epochs_of_a_mixture_add_up(sources, shuffle, seed):
    counts, repeats = zip(*sources, strict=True)
    mixture = Mixture(counts, repeats, seed, shuffle)
    assert len(mixture) == sum(round(n * r) for n, r in sources)
    seen = [np.zeros(count, int) for count in counts]
    for epoch in range(4):
        visits = mixture(epoch, np.arange(len(mixture)))
        for k, (count, repeat) in enumerate(sources):
            mine = visits.source == k
            assert mine.sum() == round(count * repeat)
            turns = list(zip(visits.sample[mine].tolist(), visits.turn[mine].tolist(), strict=True))
            assert len(set(turns)) == len(turns)
            for sample, turn in sorted(turns, key=lambda each: each[1]):
                assert turn == seen[k][sample]  # turns count the visits before
                seen[k][sample] += 1
            if count:
                assert np.ptp(seen[k]) <= 1
    if not shuffle and len(mixture):
        visits = mixture(0, np.arange(len(mixture)))
        assert (np.diff(visits.source) >= 0).all()


def test_epochs_and_seeds_differ():
    orders = {
        tuple(Mixture([50], [1.0], seed, True)(epoch, np.arange(50)).sample.tolist())
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9
