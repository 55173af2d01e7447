"""Properties of the buckets and of the way into them, for many resolutions and pictures."""

from __future__ import annotations

import math
from random import Random

import pytest

from trainer.data.buckets import WIDEST, Bucket, place, sizes

RESOLUTIONS = [64, 96, 128, 256, 512, 768, 1024, 1536, 2048]


def step_of(resolution: int) -> int:
    return 64 if resolution >= 512 else 32


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_sides_are_multiples_of_what_the_model_divides_by(resolution: int) -> None:
    assert all(side % step_of(resolution) == 0 for bucket in sizes(resolution) for side in (bucket.width, bucket.height))


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_areas_are_nearly_equal(resolution: int) -> None:
    assert all(abs(bucket.width * bucket.height / resolution**2 - 1) < 0.125 for bucket in sizes(resolution))


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_no_bucket_is_wider_than_allowed(resolution: int) -> None:
    assert all(max(b.width / b.height, b.height / b.width) <= WIDEST for b in sizes(resolution))


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_the_square_is_among_them(resolution: int) -> None:
    assert Bucket(resolution, resolution) in sizes(resolution)


@pytest.mark.parametrize("resolution", [100, 120, 500, 700, 1000])
def test_a_crooked_resolution_has_buckets_of_its_area_too(resolution: int) -> None:
    areas = [bucket.width * bucket.height / resolution**2 for bucket in sizes(resolution)]
    assert all(0.5 < area < 1.125 for area in areas)


def pictures() -> list[tuple[int, int]]:
    random = Random(4)
    return [(random.randrange(16, 6000), random.randrange(16, 6000)) for _ in range(300)] + [(16, 4000), (4000, 16), (16, 16)]


@pytest.mark.parametrize("resolution", [128, 1024])
def test_a_picture_covers_its_bucket(resolution: int) -> None:
    for width, height in pictures():
        placement = place(width, height, sizes(resolution))
        assert placement.scaled[0] >= placement.bucket.width
        assert placement.scaled[1] >= placement.bucket.height


@pytest.mark.parametrize("resolution", [128, 1024])
def test_the_crop_lies_in_the_middle_of_the_scaled_picture(resolution: int) -> None:
    for width, height in pictures():
        placement = place(width, height, sizes(resolution))
        right = placement.scaled[0] - placement.bucket.width - placement.left
        below = placement.scaled[1] - placement.bucket.height - placement.top
        assert 0 <= right - placement.left <= 1
        assert 0 <= below - placement.top <= 1


@pytest.mark.parametrize("resolution", [128, 1024])
def test_no_more_is_cropped_than_needed(resolution: int) -> None:
    for width, height in pictures():
        placement = place(width, height, sizes(resolution))
        assert placement.scaled[0] - placement.bucket.width <= 1 or placement.scaled[1] - placement.bucket.height <= 1


@pytest.mark.parametrize("resolution", [128, 1024])
def test_the_ratio_is_kept_to_a_pixel(resolution: int) -> None:
    for width, height in pictures():
        scaled = place(width, height, sizes(resolution)).scaled
        assert abs(scaled[0] * height / width - scaled[1]) <= 1 + height / width


@pytest.mark.parametrize("resolution", [128, 1024])
def test_the_nearest_ratio_is_taken(resolution: int) -> None:
    buckets = sizes(resolution)
    for width, height in pictures():
        chosen = place(width, height, buckets).bucket
        far = {b: abs(math.log(b.width * height / b.height / width)) for b in buckets}
        assert far[chosen] == pytest.approx(min(far.values()))


def test_sdxl_is_told_height_before_width() -> None:
    placement = place(3000, 2000, (Bucket(1216, 832),))
    assert placement.scaled == (1248, 832)
    assert placement.time_ids == (2000, 3000, 0, 16, 832, 1216)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_every_bucket_is_there_turned_too(resolution: int) -> None:
    buckets = set(sizes(resolution))
    assert buckets == {Bucket(bucket.height, bucket.width) for bucket in buckets}
