"""Seeds for every draw. Knows no generator: a draw that depends on nothing but its seed can be made again at any time."""

from __future__ import annotations

import hashlib


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from whatever a draw depends on: (seed, step, picture …)."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
