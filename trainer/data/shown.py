"""One way in which a picture is trained: where it lies in its bucket, what is said of it, how much it counts.

Knows neither which steps show it nor latents; no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainer.data.buckets import Placement
from trainer.data.dataset import Picture
from trainer.data.variety import variants
from trainer.settings import Settings


@dataclass(frozen=True)
class Shown:
    """A picture with one of its placements."""

    picture: Picture
    placement: Placement
    weight: float = 1.0
    """How much its loss counts."""
    prior: bool = False
    """Whether it is not of the style: it keeps what the base knows, and its caption gets no trigger word."""

    @property
    def caption(self) -> str:
        """What is said of the picture, before anything is varied."""
        return self.picture.caption

    def captioned(self, settings: Settings) -> Settings:
        """The settings by which its caption is varied: for a prior picture, without the trigger word."""
        return settings.model_copy(update={"trigger": ""}) if self.prior else settings

    def variants(self, settings: Settings) -> list[str]:
        """The texts that its caption can become where text is encoded only once; see `variety.variants`."""
        return variants(self.caption, self.captioned(settings), settings.caption_variants, self.picture.path.name)
