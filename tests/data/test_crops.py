"""What training sees of a picture: cut by hand, near its focus, mirrored; held against pictures that Pillow has cropped."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageDraw

from trainer.data import crops
from trainer.data.buckets import Bucket, Placement
from trainer.data.cache import prepared
from trainer.data.crops import Framing, by_content, seen, tally
from trainer.data.dataset import Dataset, Picture
from trainer.data.intake import read_picture
from trainer.errors import DatasetError
from trainer.settings_text import validated

SMALL = {"resolution": 64}


def dataset(about: dict[str, Any], *sizes: tuple[int, int]) -> Dataset:
    """Pictures `0.png`, `1.png` … of these sizes, that are nowhere on the disk."""
    pictures = tuple(Picture(Path("set") / f"{number}.png", *size) for number, size in enumerate(sizes))
    return Dataset(Path("set"), pictures, (), about)


def ways(of: Dataset, **settings: Any) -> list[Placement]:
    """Every placement of the first picture."""
    return list(Framing.of(of).placements(of.pictures[0], validated({**SMALL, **settings})))


def cornered(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """A grey picture of coarse grain with a red square in it."""
    grain = Image.fromarray(np.random.default_rng(3).integers(90, 120, (20, 20, 3), dtype=np.uint8))
    picture = grain.resize(size)
    ImageDraw.Draw(picture).rectangle(box, fill=(255, 0, 0))
    return picture


def red(picture: Image.Image) -> int:
    """How many pixels are red."""
    values = np.asarray(picture).astype(int)
    return int(((values[..., 0] > 240) & (values[..., 1] < 15)).sum())


# Cut by hand ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{}, {"flip": True}, {"resolutions": [96, 32 * 4]}, {"crops": 3, "flip": True}, {"resolution": 512}], ids=str
)
@pytest.mark.parametrize("edges", [(0.25, 0.0, 0.75, 1.0), (0.1, 0.3, 0.9, 0.45), (0.0, 0.0, 0.999, 1.0)])
def test_a_cut_is_as_a_file_that_was_cut(edges: tuple[float, ...], settings: dict[str, Any]) -> None:
    picture = cornered((400, 200), (30, 40, 200, 90))
    width, height = picture.size
    by_hand = picture.crop(
        (round(edges[0] * width), round(edges[1] * height), round(edges[2] * width), round(edges[3] * height))
    )
    cut = ways(dataset({"crops": {"0.png": list(edges)}}, picture.size), **settings)
    plain = ways(dataset({}, by_hand.size), **settings)
    assert [replace(placement, cut=None) for placement in cut] == plain
    assert [placement.time_ids for placement in cut] == [placement.time_ids for placement in plain]
    for one, other in zip(cut, plain, strict=True):
        assert prepared(picture, one).tobytes() == prepared(by_hand, other).tobytes()


def test_a_cut_into_a_smaller_part_goes_into_a_smaller_bucket() -> None:
    part = seen(*first(dataset({"crops": {"0.png": [0.5, 0.5, 1, 1]}}, (1200, 1200)), resolution=1024, max_upscale=1.0))
    assert (part.bucket, part.original, part.whole) == (Bucket(480, 480), (600, 600), (1200, 1200))


def first(of: Dataset, **settings: Any) -> tuple[Picture, Any, Dataset]:
    """What `seen` takes, of the first picture."""
    return of.pictures[0], validated({**SMALL, **settings}), of


def test_a_cut_that_leaves_the_whole_picture_is_none() -> None:
    whole = dataset({"crops": {"0.png": [0, 0, 1, 0.9999]}}, (90, 60))
    assert seen(*first(whole)) == seen(*first(dataset({}, (90, 60))))


def test_a_cut_that_leaves_too_little_is_told_of() -> None:
    told = (
        r"^The crop of 0\.png leaves only 9 x 60 pixels of it: widen or delete it under \[crops\] in set[/\\]dataset\.toml\.$"
    )
    with pytest.raises(DatasetError, match=told):
        Framing.of(dataset({"crops": {"0.png": [0, 0, 0.1, 1]}}, (90, 60)))
    Framing.of(dataset({"crops": {"0.png": [0, 0, 16 / 90, 1], "gone.png": [0, 0, 0.001, 1]}}, (90, 60)))


# The focus --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("size", "corner"), [((400, 160), 0), ((400, 160), 360), ((160, 400), 0), ((160, 400), 360)])
def test_the_crop_holds_what_the_focus_is_on(size: tuple[int, int], corner: int, flip: bool) -> None:
    wide = size[0] > size[1]
    left, top = (corner, 60) if wide else (60, corner)
    picture = cornered(size, (left, top, left + 39, top + 39))
    focus = [(left + 20) / size[0], (top + 20) / size[1]]
    settings = {"resolution": 128, "flip": flip}
    for centred, aimed in zip(
        ways(dataset({}, size), **settings), ways(dataset({"focus": {"0.png": focus}}, size), **settings), strict=True
    ):
        whole = red(picture.resize(aimed.scaled, Image.Resampling.LANCZOS))
        assert red(prepared(picture, centred)) < whole / 2
        assert red(prepared(picture, aimed)) == whole
        assert replace(aimed, left=0, top=0) == replace(centred, left=0, top=0), "more than the place has changed"


@pytest.mark.parametrize(("across", "left"), [(0.0, 0), (0.3, 35), (0.5, 112), (0.65, 169), (0.9, 224)])
def test_the_crop_is_what_pillow_crops_around_the_focus(across: float, left: int) -> None:
    picture = cornered((768, 192), (600, 10, 660, 30))
    [placement] = ways(dataset({"focus": {"0.png": [across, 0.9]}}, picture.size), resolution=128)
    assert (placement.bucket, placement.scaled) == (Bucket(160, 96), (384, 96))
    by_hand = picture.resize((384, 96), Image.Resampling.LANCZOS)
    assert prepared(picture, placement).tobytes() == by_hand.crop((left, 0, left + 160, 96)).tobytes()


def test_a_focus_in_the_middle_changes_nothing() -> None:
    for size in ((401, 160), (160, 403), (96, 64), (200, 200)):
        middle = dataset({"focus": {"0.png": [0.5, 0.5]}}, size)
        assert ways(middle, flip=True) == ways(dataset({}, size), flip=True)


def test_with_several_crops_a_focus_does_nothing_and_a_cut_does() -> None:
    size, cut = (400, 160), {"0.png": [0.5, 0, 1, 1]}
    focused = dataset({"focus": {"0.png": [1, 0.5]}}, size)
    assert ways(focused, crops=4) == ways(dataset({}, size), crops=4)
    assert ways(dataset({"focus": {"0.png": [1, 0.5]}, "crops": cut}, size), crops=4) == ways(
        dataset({"crops": cut}, size), crops=4
    )
    assert all(crops.box(placement)[0] >= 0.5 for placement in ways(dataset({"crops": cut}, size), crops=4))


def test_a_mirrored_crop_shows_the_same_part() -> None:
    about = {"focus": {"0.png": [0.31, 0.5]}, "crops": {"0.png": [0.1, 0, 0.9, 0.5]}}
    plain, mirrored = ways(dataset(about, (800, 400)), flip=True)
    assert (plain.mirrored, mirrored.mirrored) == (False, True)
    assert crops.box(mirrored) == pytest.approx(crops.box(plain), abs=1.01 / plain.scaled[0])


# The box ----------------------------------------------------------------------------------------------------------------

SIDES = st.integers(90, 600)  # of which a cut leaves 16 pixels at least
EDGES = st.tuples(st.floats(0, 0.4), st.floats(0, 0.4), st.floats(0.6, 1), st.floats(0.6, 1)).map(list)
POINTS = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(list)


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(SIDES, SIDES),
    edges=st.none() | EDGES,
    focus=st.none() | POINTS,
    more=st.sampled_from([{}, {"flip": True}, {"resolutions": [128]}, {"crops": 3, "flip": True}]),
)
def test_the_box_is_the_region_that_is_encoded(
    size: tuple[int, int], edges: list[float] | None, focus: list[float] | None, more: dict[str, Any]
) -> None:
    """Two pictures that say in each pixel where it is are prepared; what comes out must lie where `box` says."""
    width, height = size
    here = {"crops": {"0.png": edges} if edges else {}, "focus": {"0.png": focus} if focus else {}}
    across = Image.fromarray(np.tile(np.arange(width, dtype=np.float32) + 0.5, (height, 1)))
    down = Image.fromarray(np.tile(np.arange(height, dtype=np.float32)[:, None] + 0.5, (1, width)))
    for placement in ways(dataset(here, size), **more):
        left, top, right, bottom = crops.box(placement)
        assert 0 <= left < right <= 1 + 1e-9
        assert 0 <= top < bottom <= 1 + 1e-9
        pixel = max(1.0, 1 / placement.upscale)
        columns = np.asarray(prepared(across, placement)).mean(axis=0)
        rows = np.asarray(prepared(down, placement)).mean(axis=1)
        columns = columns[::-1] if placement.mirrored else columns
        for found, low, high in ((columns, left * width, right * width), (rows, top * height, bottom * height)):
            step = (high - low) / len(found)
            assert found[0] == pytest.approx(low + step / 2, abs=pixel)
            assert found[-1] == pytest.approx(high - step / 2, abs=pixel)
            assert found.mean() == pytest.approx((low + high) / 2, abs=pixel / 2)


@settings(deadline=None, max_examples=60)
@given(size=st.tuples(SIDES, SIDES), edges=EDGES, focus=POINTS, flip=st.booleans())
def test_the_focus_is_as_near_the_middle_as_the_cut_allows(
    size: tuple[int, int], edges: list[float], focus: list[float], flip: bool
) -> None:
    for placement in ways(dataset({"crops": {"0.png": edges}, "focus": {"0.png": focus}}, size), flip=flip, resolution=128):
        kept = crops.box(placement)
        for axis in (0, 1):
            low, high = kept[axis], kept[axis + 2]
            first, last = (round(edges[side] * size[axis]) / size[axis] for side in (axis, axis + 2))
            pixel = 1 / placement.upscale / size[axis]  # of the scaled picture, as a share
            assert low >= first - 1e-9
            assert high <= last + 1e-9
            middle = (low + high) / 2
            if middle > focus[axis] + 1.01 * pixel:
                assert low <= first + 1e-9, "it could lie nearer"
            if middle < focus[axis] - 1.01 * pixel:
                assert high >= last - 1e-9, "it could lie nearer"


def test_pictures_are_counted_by_bucket() -> None:
    of = dataset({"crops": {"1.png": [0, 0, 0.5, 1]}, "repeats": {"0.png": 5}}, (100, 100), (200, 100), (200, 100), (70, 70))
    tallied = tally(of, validated({"resolution": 128, "flip": True, "resolutions": [64]}))
    assert tallied == [(Bucket(128, 128), 3), (Bucket(160, 96), 1)]


def test_what_is_seen_is_the_first_that_is_trained() -> None:
    of = dataset({"crops": {"0.png": [0, 0, 0.5, 1]}, "focus": {"0.png": [0.1, 0.1]}}, (700, 300))
    for more in ({}, {"flip": True, "resolutions": [128]}, {"crops": 4}):
        assert seen(*first(of, **more)) == ways(of, **more)[0]


# By content -------------------------------------------------------------------------------------------------------------


def subject(side: int) -> Image.Image:
    """Something bright with much detail."""
    return Image.fromarray(np.random.default_rng(1).integers(110, 256, (16, 16, 3), dtype=np.uint8)).resize((side, side), 0)


def saved(path: Path, picture: Image.Image, **more: Any) -> Path:
    picture.save(path, quality=90, **more)
    return path


def noise() -> Image.Image:
    """Nothing but grain."""
    return Image.fromarray(np.random.default_rng(2).integers(90, 140, (800, 300, 3), dtype=np.uint8))


def test_a_subject_stands_out_of_coarse_grain(tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(2).integers(90, 140, (160, 60, 3), dtype=np.uint8)).resize((300, 800))
    picture.paste(subject(90), (200, 700))
    assert by_content(saved(tmp_path / "a.jpg", picture)) == pytest.approx((245 / 300, 745 / 800), abs=0.06)


@pytest.mark.parametrize("ground", ["#223", "#eee", "#508050"])
@pytest.mark.parametrize("corner", [(20, 30), (250, 1180), (150, 600), (0, 1300)])
def test_a_subject_in_a_plain_tall_picture_is_kept(tmp_path: Path, corner: tuple[int, int], ground: str) -> None:
    picture = Image.new("RGB", (600, 1600), ground)
    picture.paste(subject(300), corner)
    focus = by_content(saved(tmp_path / "a.jpg", picture))
    assert focus == pytest.approx(((corner[0] + 150) / 600, (corner[1] + 150) / 1600), abs=0.03)
    square = dataset({"focus": {"0.png": list(focus)}, "crops": {"0.png": [0, 0, 1, 1]}}, picture.size)
    left, top, right, bottom = crops.box(seen(*first(square)))
    assert left * 600 <= corner[0] + 12
    assert right * 600 >= corner[0] + 288
    assert top * 1600 <= corner[1] + 12
    assert bottom * 1600 >= corner[1] + 288


@pytest.mark.parametrize("made", [lambda: Image.new("RGB", (300, 800), "#777"), noise], ids=["flat", "grain"])
def test_where_nothing_stands_out_the_focus_is_the_middle(tmp_path: Path, made: Callable[[], Image.Image]) -> None:
    assert by_content(saved(tmp_path / "a.jpg", made())) == pytest.approx((0.5, 0.5), abs=0.02)


@pytest.mark.parametrize("size", [(4000, 16), (16, 4000), (16, 16)])
def test_a_picture_of_any_shape_has_a_focus(tmp_path: Path, size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size)
    picture.paste("white", (0, 0, size[0] // 2, size[1]))
    across, down = by_content(saved(tmp_path / "a.png", picture))
    assert 0 <= across <= 1
    assert 0 <= down <= 1


def test_the_focus_is_that_of_the_upright_picture(tmp_path: Path) -> None:
    stored = Image.new("RGB", (800, 300), "#223")
    stored.paste(subject(100), (680, 20))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned by a quarter, clockwise: what is at the right comes to the bottom
    across, down = by_content(saved(tmp_path / "a.jpg", stored, exif=exif))
    assert (across, down) == pytest.approx((1 - 70 / 300, 730 / 800), abs=0.03)


def test_the_content_of_a_large_photo_is_found_at_once(tmp_path: Path) -> None:
    small = Image.fromarray(np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8))
    path = saved(tmp_path / "a.jpg", small.resize((4000, 3000), Image.Resampling.BICUBIC))

    def seconds(work: Callable[[Path], object]) -> float:
        began = time.process_time()
        work(path)
        return time.process_time() - began

    assert min(seconds(by_content) for _ in range(3)) < min(seconds(read_picture) for _ in range(3)) / 2
