"""The tab *Dataset* in a real browser: from a pile of files to a dataset worth training on."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from PIL import ExifTags, Image, ImageDraw
from playwright.sync_api import Page, expect

from tests.browser.conftest import create_dataset, drop, open_tab, pictures, serving, wait_for
from tests.data.arrival.test_bad_inputs import REFUSED, Make
from tests.data.heic import TURNED
from trainer import presets
from trainer.data import crops, masks
from trainer.data.dataset import Dataset
from trainer.home import Home

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

BAD = (
    "1 truncated JPEG", "1 truncated PNG", "2 zero bytes", "3 text named .jpg", "3 a page named .jpg", "11 1x1",
    "13 30000 x 30000", "13 65 megapixels", "18 SVG", "18 PDF", "18 MP4", "40 pickle",
)  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """One home for all tests here: each has a dataset of its own."""
    return Home(tmp_path_factory.mktemp("dataset") / "home")


@pytest.fixture(scope="module")
def address(home: Home) -> Iterator[str]:
    """One program for all tests here."""
    with serving(home) as address:
        yield address


def scene(number: int, size: tuple[int, int] = (1100, 900)) -> Image.Image:
    """A picture that is like no other."""
    random, picture = Random(number), Image.effect_noise(size, 20).convert("RGB")
    draw = ImageDraw.Draw(picture)
    for _ in range(14):
        left, top = random.randrange(size[0]), random.randrange(size[1])
        right, low = left + random.randrange(60, size[0] // 2 + 61), top + random.randrange(60, size[1] // 2 + 61)
        draw.ellipse((left, top, right, low), fill=tuple(random.choices(range(256), k=3)))
    return picture


def framed(number: int) -> Image.Image:
    """A picture in a white frame."""
    framed = Image.new("RGB", (1200, 1000), "white")
    framed.paste(scene(number, (1000, 800)), (100, 100))
    return framed


def good(folder: Path) -> list[Path]:
    """Twenty-eight files that can be used, of all kinds: one is there twice, two have frames."""
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    kinds: dict[str, Make] = {
        "four colours.jpg": lambda path: scene(20).convert("CMYK").save(path),
        "glass.png": lambda path: Image.new("RGBA", (1100, 900), (90, 20, 20, 120)).save(path),
        "animated.gif": lambda path: scene(21).save(path, save_all=True, append_images=[scene(22)]),
        "scanned.tiff": lambda path: scene(23).save(path),
        "old.bmp": lambda path: scene(24).save(path),
        "new.avif": lambda path: scene(25).save(path),
        "phone.heic": lambda path: path.write_bytes(TURNED),
        "small.webp": lambda path: scene(26, (400, 300)).save(path),
        "on its side.jpg": lambda path: scene(27).save(path, exif=turned),
        "framed one.jpg": lambda path: framed(28).save(path, quality=95),
        "framed two.png": lambda path: framed(29).save(path),
        "wide.jpg": lambda path: scene(30, (1800, 700)).save(path),
    }
    for number in range(1, 16):
        scene(number).save(folder / f"scene {number:02}.jpg", quality=92)
    (folder / "twin.jpg").write_bytes((folder / "scene 01.jpg").read_bytes())
    for name, make in kinds.items():
        make(folder / name)
    return sorted(folder.iterdir())


def bad(folder: Path) -> dict[str, str]:
    """Twelve files that cannot, by their names; and what is to be said of each."""
    told = {}
    for number, kind in enumerate(BAD, start=1):
        name, make, sentence = REFUSED[kind]
        bad_name = f"bad {number:02}{Path(name).suffix}"
        make(folder / bad_name)
        told[bad_name] = sentence.replace(name, bad_name)
    return told


def look(page: Page, tmp_path: Path, name: str) -> None:
    page.screenshot(path=tmp_path / f"{name}.png", full_page=True)


def mend(page: Page, kind: str) -> None:
    """Have a finding mended, and wait until it is not there any more."""
    row = page.locator(f"#findings li[data-kind={kind}]")
    row.get_by_role("button").last.click()
    expect(row).to_have_count(0)


def test_from_a_pile_of_files_to_a_dataset_worth_training_on(page: Page, home: Home, tmp_path: Path) -> None:
    (pile := tmp_path / "pile").mkdir()
    usable, refused = good(pile), bad(pile)
    assert (len(usable), len(refused)) == (28, 12)
    look(page, tmp_path, "0-empty")
    drop(page, sorted(pile.iterdir()))
    told = page.locator("#drop .studio-how")
    expect(told).to_have_text("28 pictures added, 12 not.")
    expect(page.locator("#pictures [role=option]")).to_have_count(28)
    folder = home.datasets / "my-style"
    expect(page.locator("#dataset-name input")).to_have_value("my-style")
    reasons = page.locator("#drop .studio-more").nth(1).locator("li")
    expect(reasons).to_have_count(12)
    for sentence in refused.values():
        expect(reasons.filter(has_text=sentence)).to_have_count(1)
    look(page, tmp_path, "1-dropped")
    sizes = {path.stat().st_size for path in usable}
    left = [path for path in home.cache.rglob("*") if path.is_file() and path.stat().st_size in sizes]
    assert left == [], "copies of what was dropped stay in the cache"
    assert not any((home.cache / "dropped").iterdir())

    page.locator("#trigger input").press_sequentially("vellorn", delay=15)
    page.locator("#pictures [role=option]").first.focus()
    page.keyboard.press("Enter")
    names = [tile.get_attribute("data-name") or "" for tile in page.locator("#pictures [role=option]").all()][:10]
    for number in range(1, 11):
        page.keyboard.type(f"subject {number}")
        page.keyboard.press("Enter")
    page.reload()
    expect(page.locator("#pictures [role=option]")).to_have_count(28)
    expect(page.locator("#trigger input")).to_have_value("vellorn")
    expect(told).to_have_text("28 pictures added, 12 not.")
    dataset = Dataset.open(folder)
    assert dataset.trigger == "vellorn"
    said = {picture.path.name: picture.caption for picture in dataset.pictures}
    assert {name: said[name] for name in names} == {name: f"subject {number}" for number, name in enumerate(names, 1)}
    page.locator(f'[role=option][data-name="{names[6]}"]').click()
    expect(page.locator(".studio textarea")).to_have_value("subject 7")
    look(page, tmp_path, "2-captioned")

    expect(page.locator("#findings .studio-hint").first).to_contain_text("With the settings under Train:")
    page.locator("#findings li[data-kind=border]").get_by_role("button", name="Show").click()
    expect(page.locator("#pictures [role=option]")).to_have_count(2)
    look(page, tmp_path, "3-findings")
    mend(page, "border")
    assert sorted(Dataset.open(folder).crops) == ["framed-one.jpg", "framed-two.png"]
    mend(page, "duplicate")
    expect(page.locator("#pictures [role=option]")).to_have_count(27)
    assert len(Dataset.open(folder).pictures) == 27
    page.locator("#findings").get_by_role("button", name="Undo", exact=True).click()
    expect(page.locator("#pictures [role=option]")).to_have_count(28)
    expect(page.locator("#findings li[data-kind=duplicate]")).to_be_visible()

    page.locator('[role=option][data-name="framed-one.jpg"]').click()
    whole, seen = page.locator(".studio-crop"), page.locator(".studio-seen")
    expect(seen).to_be_visible()
    expect(page.locator(".studio-editor")).to_contain_text("1200 × 1000, trained at")
    outer, inner = whole.bounding_box(), seen.bounding_box()
    assert outer is not None
    assert inner is not None
    shown = (inner["x"] - outer["x"]) / outer["width"], (inner["y"] - outer["y"]) / outer["height"]
    dataset = Dataset.open(folder)
    picture = next(picture for picture in dataset.pictures if picture.path.name == "framed-one.jpg")
    trained = crops.box(crops.seen(picture, presets.load(presets.DEFAULT).settings("starter"), dataset))
    assert shown == pytest.approx(trained[:2], abs=0.01)
    assert min(shown) > 0.08, "the frame is left out"
    look(page, tmp_path, "4-crop")


def test_a_folder_a_zip_and_a_pasted_picture(page: Page, home: Home, tmp_path: Path) -> None:
    tree = tmp_path / "drawings"
    for place, number in (("3_boats", 1), ("trees", 2)):
        (tree / place).mkdir(parents=True)
        scene(number, (600, 500)).save(tree / place / "same name.png")
        (tree / place / "same name.txt").write_text(f"subject {number}\n")
    create_dataset(page, "folder")
    page.locator("#drop input[webkitdirectory]").set_input_files(tree)
    expect(page.locator("#pictures [role=option]")).to_have_count(2)
    dataset = Dataset.open(home.datasets / "folder")
    assert sorted(picture.caption for picture in dataset.pictures) == ["subject 1", "subject 2"]
    assert list(dataset.repeats.values()) == [3]

    with page.expect_download() as download:
        page.locator(".studio-zip").click()
    packed = tmp_path / download.value.suggested_filename
    download.value.save_as(packed)
    assert zipfile.is_zipfile(packed)
    create_dataset(page, "again")
    drop(page, [packed])
    expect(page.locator("#pictures [role=option]")).to_have_count(2)
    again = Dataset.open(home.datasets / "again")
    assert [each.caption for each in again.pictures] == [each.caption for each in dataset.pictures]
    assert again.repeats == dataset.repeats

    content = io.BytesIO()
    scene(3, (300, 200)).save(content, "PNG")
    page.evaluate(PASTE, list(content.getvalue()))
    expect(page.locator("#pictures [role=option]")).to_have_count(3)
    assert (home.datasets / "again" / "pasted.png").read_bytes() == content.getvalue()


PASTE = """(bytes) => {
  const given = new DataTransfer();
  given.items.add(new File([new Uint8Array(bytes)], "image.png", { type: "image/png" }));
  document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData: given, bubbles: true, cancelable: true }));
}"""


def test_what_is_dropped_meanwhile_waits_and_what_fails_is_told(page: Page, home: Home) -> None:
    create_dataset(page, "meanwhile")
    chosen, folder = page.locator("#drop input[multiple]"), home.datasets / "meanwhile"
    chosen.set_input_files(pictures(6))
    chosen.set_input_files(pictures(9)[6:])
    expect(page.locator("#pictures [role=option]")).to_have_count(9)
    full = {"status": 422, "json": {"message": "The disk is full."}}
    page.route("**/file?path=10.png", lambda route: route.fulfill(**full))
    chosen.set_input_files(pictures(12)[9:])
    expect(page.locator("#drop [role=status]")).to_have_text("The disk is full.")
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    page.wait_for_timeout(500)
    expect(page.locator("#drop [role=status]")).to_have_text("The disk is full.")
    assert len(list(folder.glob("*.png"))) == 9


def test_adding_goes_on_when_the_page_is_left_and_is_told_to_the_next(page: Page, home: Home, tmp_path: Path) -> None:
    whole = scene(5, (2400, 1800)).convert("CMYK")
    for number in range(12):
        whole.putpixel((0, 0), (number, 0, 0, 0))
        whole.save(tmp_path / f"{number:02}.jpg")
    create_dataset(page, "slow")
    drop(page, sorted(tmp_path.iterdir()))
    expect(page.locator("#drop .studio-how")).to_contain_text("Adding")
    page.goto("about:blank")
    wait_for(lambda: len(list((home.datasets / "slow").glob("*.jpg"))) == 12)
    page.go_back()
    page.locator("#dataset-name input").click()
    page.get_by_role("option", name="slow", exact=True).click()
    expect(page.locator("#drop .studio-how")).to_have_text("12 pictures added.")
    expect(page.locator("#pictures [role=option]")).to_have_count(12)
    page.locator("#drop").get_by_role("button", name="Close").click()
    expect(page.locator("#drop .studio-how")).to_be_hidden()


def test_the_trigger_word_of_two_tabs(page: Page, home: Home, address: str) -> None:
    create_dataset(page, "word")
    folder = home.datasets / "word"
    page.locator("#trigger input").fill("mine")
    wait_for(lambda: Dataset(folder, (), ()).trigger == "mine")
    (folder / "dataset.toml").write_text('trigger = "theirs"\n')
    page.locator("#trigger input").fill("mine again")
    conflict = page.locator("#trigger [role=alert]")
    expect(conflict).to_contain_text("It is now: theirs")
    assert Dataset(folder, (), ()).trigger == "theirs"
    conflict.get_by_role("button", name="Keep mine").click()
    wait_for(lambda: Dataset(folder, (), ()).trigger == "mine again")
    expect(conflict).to_be_hidden()
    (folder / "dataset.toml").write_text('trigger = "from elsewhere"\n')
    expect(page.locator("#trigger input")).to_have_value("from elsewhere")


def test_captions_are_written_from_file_names(page: Page, home: Home, tmp_path: Path) -> None:
    for number, name in enumerate(("red-house", "old_tree", "boat")):
        scene(number, (300, 200)).save(tmp_path / f"{name}.png")
    create_dataset(page, "named")
    drop(page, sorted(tmp_path.iterdir()))
    expect(page.locator("#pictures [role=option]")).to_have_count(3)
    page.locator("#auto-captions > button").click()
    page.locator("#caption-template").get_by_role("textbox").fill("a picture of {name}")
    page.locator("#write-captions").click()
    expect(page.locator("#captions-status")).to_contain_text("3 captions are written")
    expect(page.locator("[role=option][data-name='old_tree.png']")).to_have_attribute(
        "aria-label", "old_tree.png: a picture of old tree"
    )
    page.reload()
    page.locator("#auto-captions > button").click()
    expect(page.locator("#captions-status")).to_have_text("“named”: 3 captions are written.")
    create_dataset(page, "another")
    expect(page.locator("#captions-status")).to_be_hidden()


def test_a_mask_is_painted_kept_and_removed(page: Page, home: Home, tmp_path: Path) -> None:
    scene(1, (1600, 800)).save(tmp_path / "wide.png")
    create_dataset(page, "masked")
    drop(page, [tmp_path / "wide.png"])
    expect(page.locator("#pictures [role=option]")).to_have_count(1)
    page.locator("#mask summary").click()
    canvas, picture = page.locator("#mask canvas"), home.datasets / "masked" / "wide.png"
    expect(canvas).to_be_visible()
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"], steps=5)
    page.mouse.up()
    look(page, tmp_path, "5-mask")
    page.get_by_role("button", name="Save mask of wide.png").click()
    wait_for(lambda: masks.found(picture))
    mask = masks.read(picture)
    assert mask is not None
    assert [mask.getpixel((x, 400)) for x in (100, 500, 700, 1200)] == [0, 255, 255, 0]
    page.reload()
    page.locator("#mask summary").click()
    expect(page.locator("#mask")).to_contain_text("The mask of wide.png.")
    assert (
        page.evaluate("() => document.querySelector('#mask canvas').getContext('2d').getImageData(288, 192, 1, 1).data[3]")
        == 255
    )
    page.get_by_role("button", name="Remove mask").click()
    wait_for(lambda: masks.found(picture) is None)


def test_the_next_trainings_settings_decide_what_is_said(page: Page, home: Home) -> None:
    create_dataset(page, "planned")
    drop(page, pictures(3))
    summary = page.locator("#findings .studio-hint").first
    expect(summary).to_contain_text("3 at 128 × 128")
    open_tab(page, "Train")
    page.locator("#settings button").first.click()
    page.locator("#set-resolution input").fill("256")
    page.locator("#set-resolution input").press("Tab")
    open_tab(page, "Dataset")
    expect(summary).to_contain_text("3 at 256 × 256")
    expect(page.locator(".studio-editor")).to_contain_text("trained at 256 × 256")
