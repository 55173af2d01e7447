"""The whole way in a real browser: pictures dropped, captioned, trained, mixed."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.bases.test_source import header_only
from tests.browser.conftest import create_dataset, drop, open_tab, pictures, wait_for
from trainer.home import Home
from trainer.training.run import Run

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


def choose_lora(page: Page, row: int, label: str) -> None:
    page.locator(f"#lora-{row} input").click()
    page.get_by_role("option", name=label, exact=True).click()
    expect(page.locator(f"#lora-{row} input")).to_have_value(label)


def set_weight(page: Page, row: int, weight: str) -> None:
    number = page.locator(f"#weight-{row} input[type=number]")
    number.fill(weight)
    number.press("Tab")


def generate(page: Page, home: Home) -> bytes:
    """Press Generate; the bytes of the picture that is kept."""
    before = set(home.pictures.glob("*.png"))
    page.locator("#generate").click()
    new = wait_for(lambda: set(home.pictures.glob("*.png")) - before)
    expect(page.locator("#before-after img").first).to_be_visible()
    expect(page.get_by_text(next(iter(new)).name)).to_be_visible()
    return next(iter(new)).read_bytes()


def test_pictures_become_a_style_that_is_mixed(page: Page, home: Home) -> None:
    create_dataset(page, "prints")
    drop(page, pictures(6))
    expect(page.locator("#pictures [role=option]")).to_have_count(6)
    page.get_by_role("option", name="02.png").click()
    page.get_by_label("Caption of 02.png").fill("a tree, seen from afar")
    wait_for(lambda: (home.datasets / "prints" / "02.txt").is_file())
    page.locator("#trigger input").fill("vellorn")
    caption, kept = home.datasets / "prints" / "02.txt", home.datasets / "prints" / "dataset.toml"
    wait_for(lambda: caption.read_text(encoding="utf-8") == "a tree, seen from afar\n")
    wait_for(lambda: kept.is_file() and "vellorn" in kept.read_text(encoding="utf-8"))

    open_tab(page, "Train")
    expect(page.locator("#train-dataset input")).to_have_value("prints")
    page.locator("#settings button").first.click()
    page.locator("#set-steps input").fill("20")
    page.locator("#train").click()
    expect(page.locator("#status")).to_contain_text("Step")
    page.reload()
    open_tab(page, "Train")
    expect(page.locator("#status")).to_contain_text("prints")
    expect(page.locator("#status")).to_contain_text("finished")
    expect(page.locator("#chart svg")).to_be_visible()
    expect(page.locator("#samples img").first).to_be_visible()
    expect(page.locator("#status")).to_contain_text("only for the starter base")

    lora = home.runs / "prints" / "prints.safetensors"
    home.loras.mkdir(parents=True)
    shutil.copyfile(lora, home.loras / "second.safetensors")
    open_tab(page, "Preview")
    page.locator("#live input").uncheck()
    page.locator("#prompt textarea").fill("a red house on the left, on grass")
    choose_lora(page, 1, "prints (run)")
    page.locator("#insert-trigger").click()
    expect(page.locator("#prompt textarea")).to_have_value("vellorn, a red house on the left, on grass")
    choose_lora(page, 2, "second")
    set_weight(page, 1, "0.8")
    set_weight(page, 2, "0.5")
    mixed = generate(page, home)
    set_weight(page, 2, "-1")
    assert generate(page, home) != mixed
    set_weight(page, 1, "0")
    set_weight(page, 2, "0")
    alone = next((home.cache / "thumbnails").glob("base-*.png")).read_bytes()
    assert generate(page, home) == alone != mixed


def test_what_is_refused_is_told_literally_and_the_rest_is_kept(page: Page, home: Home, tmp_path: Path) -> None:
    (home.datasets / "prints").mkdir(parents=True)
    (home.datasets / "prints" / "<img src=x onerror=alert(1)> *slanted*.jpg").write_text("no picture")
    page.reload()
    expect(page.locator("#dataset-name input")).to_have_value("prints")
    no_picture = tmp_path / "a __bold__ name.jpg"
    no_picture.write_text("no picture")
    drop(page, [no_picture, *pictures(1)])
    expect(page.locator("#pictures [role=option]")).to_have_count(1)
    told, found = page.locator("#drop li"), page.locator("#findings li[data-kind=damaged]")
    expect(told).to_contain_text("a __bold__ name.jpg is not a picture")
    expect(found).to_contain_text("<img src=x onerror=alert(1)> *slanted*.jpg is not a picture")
    expect(page.locator("#drop, #findings").locator("img, em, strong")).to_have_count(0)
    open_tab(page, "Preview")
    page.locator("#style-sheet").click()
    expect(page.get_by_text("Choose LoRA 1 first")).to_be_visible()


def open_group(page: Page, title: str) -> None:
    page.locator(".impasto-fold > button", has_text=title).click()


def choose(page: Page, setting: str, value: str) -> None:
    page.locator(f"#set-{setting} input").click()
    page.get_by_role("option", name=value, exact=True).click()


def left(page: Page, button: str) -> float:
    """How far from the left edge a button is, in pixels."""
    box = page.locator(button).bounding_box()
    assert box is not None
    return box["x"]


def test_a_training_is_set_up_paused_and_stopped_from_the_page(page: Page, home: Home) -> None:
    create_dataset(page, "prints")
    drop(page, pictures(4))
    expect(page.locator("#pictures [role=option]")).to_have_count(4)
    open_tab(page, "Train")
    expect(page.locator("#train-dataset input")).to_have_value("prints")
    page.locator("#settings button").first.click()
    page.locator("#set-steps input").fill("2000")
    open_group(page, "Checkpoints, samples")
    page.locator("#set-sample_steps input").fill("2")
    open_group(page, "Kind of LoRA")
    page.locator("#set-alpha input").fill("-2")
    choose(page, "rslora", "yes")
    expect(page.locator(".impasto-fold > button", has_text="2 changed")).to_contain_text("Kind of LoRA")
    expect(page.locator("#settings > button")).to_contain_text("4 changed")
    page.locator("#train").click()
    expect(page.get_by_text("Alpha must be a number above 0")).to_be_visible()
    assert not home.runs.exists()
    page.locator("#set-alpha input").fill("2")
    page.get_by_label("Quick look", exact=False).check()
    expect(page.locator("#set-rslora input")).to_have_value("yes")
    expect(page.locator("#set-targets input")).to_have_value("attention (preset)")
    page.locator("#train").click()

    status, run = page.locator("#status"), home.runs / "prints"
    expect(status).to_contain_text("Step")
    expect(page.locator("#pause-run")).to_be_enabled()
    places = left(page, "#pause-run"), left(page, "#stop-run")
    page.locator("#pause-run").click()
    expect(status).to_contain_text("is paused")
    expect(page.locator("#pause-run")).to_have_count(0)
    expect(page.locator("#sample-run")).to_be_disabled()
    assert (left(page, "#go-on"), left(page, "#stop-run")) == places
    page.locator("#go-on").click()
    expect(status).to_contain_text("Training prints")
    expect(page.locator("#sample-run")).to_be_enabled()
    page.locator("#sample-run").click()
    wait_for(lambda: [path for path in (run / "samples").glob("*.png") if not path.name.startswith("000000")])
    assert left(page, "#stop-run") == places[1]
    page.locator("#cancel-run").click()
    expect(page.locator("#doubt")).to_contain_text("Resume would go on from the checkpoint at step")
    page.locator("#keep-training").click()
    expect(page.locator("#sure")).to_be_hidden()
    assert not (run / "cancel").exists()
    page.locator("#stop-run").click()
    expect(status).to_contain_text("prints is stopped")
    expect(page.locator("#resume")).to_be_visible()
    expect(page.locator("#samples")).to_contain_text("the base")
    kept = Run.open(run).settings
    assert (kept.alpha, kept.rslora, kept.steps, kept.rank) == (2.0, True, 2000, 8)
    assert (run / "prints.safetensors").is_file()


def test_the_page_can_be_used_in_a_narrow_window(page: Page) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    for tab in ("Dataset", "Train", "Preview"):
        open_tab(page, tab)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 400, f"{tab} is {width} pixels wide"
    open_tab(page, "Train")
    page.locator("#settings button").first.click()
    expect(page.locator("#set-steps")).to_be_visible()
    for group in page.locator(".impasto-fold > button").all():
        group.click()
        page.wait_for_timeout(500)  # Gradio builds what a fold holds when it is opened
    expect(page.locator("#set-prediction")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_answers_come_into_sight_in_a_narrow_window(page: Page) -> None:
    create_dataset(page, "prints")
    drop(page, pictures(2))
    expect(page.locator("#pictures [role=option]")).to_have_count(2)
    page.set_viewport_size({"width": 400, "height": 700})
    open_tab(page, "Train")
    expect(page.locator("#train-dataset input")).to_have_value("prints")
    page.locator("#settings button").first.click()
    page.locator("#set-steps input").fill("100000")
    page.locator("#ask-fit").click()
    expect(page.locator("#fit strong")).to_be_in_viewport()
    page.locator("#train").click()
    expect(page.locator("#status h3")).to_be_in_viewport()
    page.locator("#cancel-run").click()
    expect(page.locator("#really-cancel")).to_be_in_viewport()
    page.locator("#really-cancel").click()
    expect(page.locator("#status")).to_contain_text("is cancelled")
    expect(page.locator("#status")).to_contain_text("There is no checkpoint: Resume begins anew.")


def test_bases_are_named_once_and_the_fit_is_told(page: Page, home: Home, tmp_path: Path) -> None:
    models = tmp_path / "Stable-diffusion"
    models.mkdir()
    header_only(models / "ponyXL.safetensors")
    create_dataset(page, "prints")
    drop(page, pictures(2))
    expect(page.locator("#pictures [role=option]")).to_have_count(2)
    open_tab(page, "Train")
    expect(page.locator("#train-dataset input")).to_have_value("prints")
    page.locator("#ask-fit").click()
    expect(page.locator("#fit")).to_contain_text("Fits:")
    page.locator("#bases button").first.click()
    page.get_by_label("Folder with base models").fill(str(models))
    page.locator("#bases-add").click()
    expect(page.locator("#bases-list")).to_contain_text("ponyXL")
    page.locator("#train-base input").click()
    page.get_by_role("option", name="ponyXL (pony)", exact=True).click()
    expect(page.locator("#train-base input")).to_have_value("ponyXL (pony)")
    page.reload()
    open_tab(page, "Preview")
    page.locator("#more button").first.click()
    page.locator("#preview-base input").click()
    expect(page.get_by_role("option", name="ponyXL (pony)", exact=True)).to_be_visible()
