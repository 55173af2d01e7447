"""Products of thin matrices and their singular values, against torch's decomposition of the whole."""

from __future__ import annotations

import torch

from tests.lora.test_merge import apart, layer
from trainer.lora.lowrank import LowRank, Spectrum
from trainer.lora.ways import ALL, Keep


def test_a_spectrum_is_the_same_through_thin_matrices_and_through_the_whole() -> None:
    for out, inward in ((20, 12), (12, 20)):
        thin = LowRank.of(layer(1, 4, 3.0, out, inward))
        whole = thin.change()
        values = torch.linalg.svdvals(whole)[:4]
        torch.testing.assert_close(Spectrum.of(thin).values, values, rtol=1e-9, atol=0)
        torch.testing.assert_close(Spectrum.dense(whole).values[:4], values, rtol=1e-9, atol=0)
        assert apart(Spectrum.dense(whole).kept(ALL).change(), whole) <= 1e-9


def test_a_few_of_many_values_are_sought_and_leave_out_no_more_than_the_nearest_does() -> None:
    whole = torch.randn(
        800, 480, generator=torch.Generator().manual_seed(3)
    ).double()  # no value stands out, which is the worst
    for change in (whole, whole.T):
        left, values, right = torch.linalg.svd(change, full_matrices=False)
        found = Spectrum.dense(change, Keep(rank=4)).kept(Keep(rank=4))
        nearest = left[:, :4] * values[:4] @ right[:4]
        assert found.rank == 4
        assert apart(found.change(), change) <= apart(nearest, change) * (1 + 3e-5)
        assert len(Spectrum.dense(change, Keep(rank=4)).values) == 4


def test_nothing_is_sought_in_nothing() -> None:
    found = Spectrum.dense(torch.zeros(480, 500), Keep(rank=2)).kept(Keep(rank=2))
    assert found.rank == 1
    assert not found.change().any()
