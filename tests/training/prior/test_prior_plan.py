from __future__ import annotations

import pytest

from vqtok.errors import UsageError
from vqtok.training.prior.grids import MARGINS
from vqtok.training.prior.plan import contexts_of, groups_of, plan_prior


@pytest.mark.parametrize("modality", ["image", "audio"])
@pytest.mark.parametrize("q", range(10))
def test_contexts_are_known_when_a_code_is_decoded(modality: str, q: int) -> None:
    contexts = contexts_of(q, modality)
    assert len(set(contexts)) == len(contexts)
    assert [c for c, _, _ in contexts] == sorted(c for c, _, _ in contexts)
    assert {c for c, _, _ in contexts} == set(range(q + 1))
    for codebook, da, db in contexts:
        assert abs(da) <= MARGINS[0]
        assert abs(db) <= MARGINS[1]
        # codes of one codebook are decoded in the order of 2 a + b
        assert codebook < q or 2 * da + db < 0


@pytest.mark.parametrize(
    ("sizes", "modality"),
    [((1024,) * 4, "image"), ((1024,) * 8, "audio"), ((16384,), "image"), ((7, 5000), "audio")],
)
def test_a_plan_fits_and_more_bytes_give_a_wider_one(sizes: tuple[int, ...], modality: str) -> None:
    small, large = (plan_prior(sizes, modality, size) for size in (700_000, 4_000_000))
    assert small.num_bytes <= 700_000 < large.num_bytes <= 4_000_000
    assert small.networks[0].hidden < large.networks[0].hidden
    for size, network in zip(sizes, small.networks, strict=True):
        assert bool(network.groups) == (size > 4096)


def test_the_first_codebook_of_sound_has_the_widest_network() -> None:
    plan = plan_prior((1024,) * 10, "audio")
    first, *others = [network.hidden for network in plan.networks]
    assert all(a > b for other in others for a, b in zip(first, other, strict=True))
    assert plan.num_bytes > 950_000


@pytest.mark.parametrize("size", [4097, 5000, 16384, 65536, 1 << 20])
def test_groups_and_their_members_fit_into_a_softmax(size: int) -> None:
    groups = groups_of(size)
    members = -(-size // groups)
    assert max(groups, members) <= 4096
    assert -(-size // members) == groups  # none is empty


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="fits into 1,000 bytes"):
        plan_prior((256, 256), "image", 1000)
    with pytest.raises(UsageError, match="too large for a prior"):
        plan_prior((1 << 25,), "image", 1 << 40)
