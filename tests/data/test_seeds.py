"""Seeds depend on all that they are told, and on nothing else."""

from __future__ import annotations

import hashlib

from trainer.data.seeds import seed_of


def test_a_seed_depends_on_every_part_and_their_order() -> None:
    seeds = {seed_of(1, 2, 3), seed_of(3, 2, 1), seed_of(12, 3), seed_of(1, 23), seed_of(1, "2", 4)}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_seed_is_the_same_in_every_process() -> None:
    assert seed_of(1, 2, "pass") == int(hashlib.sha256(b"1/2/pass").hexdigest()[:16], 16) // 2
