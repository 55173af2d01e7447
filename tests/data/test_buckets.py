"""Properties of the buckets and of the way into them, for many resolutions and pictures."""

from __future__ import annotations

import math
from random import Random

import pytest

from trainer.data.buckets import WIDEST, Bucket, Placement, place, place_within, sizes

RESOLUTIONS = [64, 96, 128, 256, 512, 768, 1024, 1536, 2048]


def step_of(resolution: int) -> int:
    return 64 if resolution >= 512 else 32


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_sides_are_multiples_of_what_the_model_divides_by(resolution: int) -> None:
    assert all(side % step_of(resolution) == 0 for bucket in sizes(resolution) for side in (bucket.width, bucket.height))


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_areas_are_nearly_equal(resolution: int) -> None:
    assert all(abs(bucket.width * bucket.height / resolution**2 - 1) < 0.125 for bucket in sizes(resolution))


@pytest.mark.parametrize(("start", "stop", "share"), [(64, 512, 0.125), (512, 1024, 0.065), (1024, 2049, 0.04)])
def test_areas_come_nearer_with_the_resolution(start: int, stop: int, share: float) -> None:
    for resolution in range(start, stop, step_of(start)):
        assert all(abs(bucket.width * bucket.height / resolution**2 - 1) < share for bucket in sizes(resolution))


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


@pytest.mark.parametrize("resolution", [128, 1024])
def test_what_is_lost_is_what_the_crop_leaves_out(resolution: int) -> None:
    for width, height in pictures():
        placement = place(width, height, sizes(resolution))
        left, top, right, bottom = placement.box
        assert (right - left, bottom - top) == (placement.bucket.width, placement.bucket.height)
        assert min(left, top) >= 0
        assert (right <= placement.scaled[0], bottom <= placement.scaled[1]) == (True, True)
        outside = placement.scaled[0] * placement.scaled[1] - (right - left) * (bottom - top)
        assert placement.lost == pytest.approx(outside / (placement.scaled[0] * placement.scaled[1]))


def test_a_picture_of_the_right_shape_loses_nothing() -> None:
    assert place(2000, 1000, (Bucket(128, 64),)).lost == 0
    assert place(2000, 1000, (Bucket(64, 64),)).lost == 0.5


# Small pictures ---------------------------------------------------------------------------------------------------------


def area(placement: Placement) -> int:
    return placement.bucket.width * placement.bucket.height


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize("most", [1.0, 1.5, 2.0])
def test_no_picture_is_enlarged_beyond_the_bound_if_a_bucket_is_small_enough(resolution: int, most: float) -> None:
    least = max(64, resolution / 4)
    for width, height in pictures():
        placement = place_within(width, height, resolution, most)
        assert area(placement) >= 0.87 * least**2
        if placement.upscale > most:
            assert area(placement) < 2.7 * least**2, "there was a smaller bucket"


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_a_picture_that_is_large_enough_is_placed_as_ever(resolution: int) -> None:
    usual = [place(width, height, sizes(resolution)) for width, height in pictures()]
    assert any(placement.upscale <= 1 for placement in usual)
    for placement in usual:
        if placement.upscale <= 1:
            assert place_within(*placement.original, resolution, 1.0) == placement
        assert place_within(*placement.original, resolution, 1e9) == placement


@pytest.mark.parametrize(
    ("side", "most", "bucket"),
    [
        (1024, 1.0, 1024), (1023, 1.0, 704), (704, 1.0, 704), (512, 2.0, 1024), (511, 2.0, 704), (512, 1.0, 480),
        (400, 1.0, 320), (320, 1.0, 320), (319, 1.0, 320), (16, 1.0, 320),
    ],
)  # fmt: skip
def test_a_small_picture_goes_into_a_smaller_bucket(side: int, most: float, bucket: int) -> None:
    assert place_within(side, side, 1024, most).bucket == Bucket(bucket, bucket)


def test_sdxl_is_told_the_size_before_and_after() -> None:
    assert place_within(500, 500, 1024, 1.0).time_ids == (500, 500, 0, 0, 480, 480)


# Other crops --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "corners"), [((70, 64), [(n, 0) for n in range(7)]), ((64, 67), [(0, n) for n in range(4)])])
def test_every_crop_can_be_found_and_none_leaves_the_picture(size: tuple[int, int], corners: list[tuple[int, int]]) -> None:
    placement = place(*size, (Bucket(64, 64),))
    assert placement.scaled == size
    found = {placement.elsewhere(Random(number)) for number in range(200)}
    assert sorted((crop.left, crop.top) for crop in found) == corners
    assert len(found) == placement.ways
    assert all(crop.bucket == placement.bucket and crop.scaled == placement.scaled for crop in found)


def test_where_nothing_is_left_over_there_is_one_crop() -> None:
    placement = place(128, 128, (Bucket(64, 64),))
    assert placement.ways == 1
    assert placement.elsewhere(Random(1)) == placement


def test_sdxl_is_told_the_crop_that_it_sees() -> None:
    placement = place(3000, 2000, (Bucket(1216, 832),))
    crop = placement.elsewhere(Random(3))
    assert crop.left != placement.left
    assert crop.time_ids == (2000, 3000, crop.top, crop.left, 832, 1216)
    assert crop.box == (crop.left, crop.top, crop.left + 1216, crop.top + 832)
