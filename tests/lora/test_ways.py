"""What may be asked for when files are made from others."""

from __future__ import annotations

import pytest

from trainer.errors import UsageError
from trainer.lora.ways import Keep, Merging, Method


@pytest.mark.parametrize(
    ("method", "rank", "energy", "more", "words"),
    [
        ("exact", 4, None, {}, "keeps everything"),
        ("svd", None, None, {}, "Give --rank"),
        ("ties", None, None, {}, "Give --rank"),
        ("svd", 4, 0.5, {}, "not both"),
        ("svd", 0, None, {}, "from 1 to 4096, not 0"),
        ("svd", None, 1.5, {}, "at most 1, not 1.5"),
        ("svd", None, float("nan"), {}, "not nan"),
        ("ties", 4, None, {"density": 0.0}, "at most 1, not 0"),
        ("svd", 4, None, {"density": 0.5}, "for ties and dare"),
        ("ties", 4, None, {"seed": 1}, "for dare"),
    ],
)
def test_what_does_not_go_together_is_told(
    method: Method, rank: int | None, energy: float | None, more: dict[str, float], words: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        Merging(method, Keep(rank, energy), **more)  # type: ignore[arg-type]
    assert str(caught.value).endswith(".")
