from __future__ import annotations

import numpy as np
import torch

from vqtok.training.prior.grids import Grids

SIZES = (7, 5)


def test_contexts_are_neighbours_or_the_border() -> None:
    rng = np.random.default_rng(0)
    shapes = [(4, 5), (1, 1), (6, 1), (0, 3), (2, 7)]
    samples = [
        np.stack([rng.integers(0, size, shape) for size in SIZES], axis=-1) for shape in shapes
    ]
    grids = Grids(samples, SIZES)
    contexts = [(0, -1, 0), (1, 0, -1), (0, 2, -3), (1, 3, 3), (0, 0, 0), (1, -2, 1)]
    expected, codes = [], []
    for sample in samples:
        rows, columns, _ = sample.shape
        for a in range(rows):
            for b in range(columns):
                codes.append(sample[a, b].tolist())
                row = []
                for c, da, db in contexts:
                    inside = 0 <= a + da < rows and 0 <= b + db < columns
                    row.append(int(sample[a + da, b + db, c]) if inside else SIZES[c])
                expected.append(row)
    everything = torch.arange(len(grids))
    assert len(grids) == len(expected) == 41
    assert grids.samples == len(samples)
    assert grids.around(everything, contexts).tolist() == expected
    for q, size in enumerate(SIZES):
        own = grids.codes(everything, q)
        assert own.tolist() == [code[q] for code in codes]
        assert grids.counts(q, size).tolist() == torch.bincount(own, minlength=size).tolist()


def test_no_samples() -> None:
    grids = Grids([], SIZES)
    assert len(grids) == 0
    assert grids.counts(0, 7).tolist() == [0] * 7
