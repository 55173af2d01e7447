"""Products of thin matrices and their singular values, against torch's decomposition of the whole."""

from __future__ import annotations

import torch

from tests.lora.test_merge import apart, layer
from trainer.lora.lowrank import LowRank, Spectrum
from trainer.lora.ways import ALL


def test_a_spectrum_is_the_same_through_thin_matrices_and_through_the_whole() -> None:
    for out, inward in ((20, 12), (12, 20)):
        thin = LowRank.of(layer(1, 4, 3.0, out, inward))
        whole = thin.change()
        values = torch.linalg.svdvals(whole)[:4]
        torch.testing.assert_close(Spectrum.of(thin).values, values, rtol=1e-9, atol=0)
        torch.testing.assert_close(Spectrum.dense(whole).values[:4], values, rtol=1e-9, atol=0)
        assert apart(Spectrum.dense(whole).kept(ALL).change(), whole) <= 1e-9
