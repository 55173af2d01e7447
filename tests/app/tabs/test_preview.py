from pathlib import Path
from typing import Any

import pytest

from app.desk import Desk
from app.jobs import Advance, Previewer
from app.tabs.preview import PreviewTab
from tests.app.conftest import in_blocks
from tests.app.test_shelf import write_header
from trainer.bases.origin import Remark
from trainer.errors import BaseModelError, LoraFileError, RunError, UsageError
from trainer.recipe import LoraChoice, Request
from trainer.training.run import Run


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What was asked of the previewer, which writes the weights instead of a picture."""
    requests: list[Request] = []

    def draw(self: Previewer, base: str, request: Request, out: Path, advance: Advance) -> list[Remark]:
        requests.append(request)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(str([lora.unet for lora in request.loras]))
        return [Remark("warning", f"{lora.path.stem} *was* trained elsewhere.") for lora in request.loras]

    monkeypatch.setattr(Previewer, "draw", draw)
    return requests


@pytest.fixture
def tab(desk: Desk) -> PreviewTab:
    for name in ("ink", "wash"):
        told = {"modelspec.trigger_phrase": f"{name}ish", "ss_base_model_version": "impasto_starter"}
        write_header(desk.home.loras / f"{name}.safetensors", **told)
    return in_blocks(lambda: PreviewTab(desk))


def given(tab: PreviewTab, *mix: tuple[str, float, float], **chosen: Any) -> dict[Any, Any]:
    """The tab's inputs with this mix, and what else is `chosen`."""
    values: dict[Any, Any] = {
        tab.prompt: "a house", tab.negative: None, tab.seed: "1", tab.steps: "", tab.cfg: "", tab.shape: "square",
        tab.base: "starter", tab.prediction: "auto", tab.together: True, tab.live: True,
    }  # fmt: skip
    for number, slot in enumerate(tab.slots):
        key, unet, text = mix[number] if number < len(mix) else ("", 1, 1)
        values |= {slot.choice: key and f"loras/{key}.safetensors", slot.unet: unet, slot.text: text}
    return {**values, **{getattr(tab, name): value for name, value in chosen.items()}}


def test_the_inputs_become_a_request(tab: PreviewTab, desk: Desk) -> None:
    request = tab.request(given(tab, ("ink", 0.8, 2), ("wash", -0.5, 2), seed="7", steps=" 12", cfg="3.5", shape="portrait"))
    assert request.loras == (
        LoraChoice(desk.home.loras / "ink.safetensors", 0.8, 0.8),
        LoraChoice(desk.home.loras / "wash.safetensors", -0.5, -0.5),
    )
    assert (request.seed, request.steps, request.cfg) == (7, 12, 3.5)
    assert request.negative == "", "Gradio gives None for a text that nobody has touched"
    assert request.width < request.height
    assert request.width % 32 == request.height % 32 == 0


def test_the_text_encoders_may_have_weights_of_their_own(tab: PreviewTab) -> None:
    assert tab.request(given(tab, ("ink", 0.8, 0.25), together=False)).loras[0].text == 0.25


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"seed": "x"}, "seed"),
        ({"seed": "-1"}, "seed"),
        ({"steps": "999"}, "steps"),
        ({"cfg": "hot"}, "CFG"),
        ({"cfg": "nan"}, "cfg"),
    ],
)
def test_wrong_input_is_a_sentence(tab: PreviewTab, drawn: list[Request], chosen: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        tab.draw(given(tab, **chosen))
    assert drawn == []


def test_base_and_mix_are_drawn_and_the_base_only_once(tab: PreviewTab, desk: Desk, drawn: list[Request]) -> None:
    first = tab.draw(given(tab, ("ink", 0.8, 1)))
    tab.draw(given(tab, ("ink", 0.4, 1)))
    assert [[lora.unet for lora in request.loras] for request in drawn] == [[], [0.8], [0.4]]
    alone, mixed = (Path(path) for path in first[tab.slider])
    assert (alone.read_text(), mixed.read_text()) == ("[]", "[0.8]")
    assert mixed.parent == desk.home.pictures
    assert len(list(desk.home.pictures.iterdir())) == 2


def test_a_base_is_named_so_that_the_previewer_finds_it_from_its_own_folder(
    tab: PreviewTab, toy_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def note(self: Previewer, base: str, *_: object) -> list[Remark]:
        asked.append(base)
        return []

    monkeypatch.setattr(Previewer, "draw", note)
    monkeypatch.setattr(Previewer, "sheet", note)
    monkeypatch.setattr(type(tab.desk.thumbnails), "of", lambda self, path, side: path)
    monkeypatch.chdir(toy_base.parent)
    tab.draw(given(tab, base=f' "{toy_base.name}" '))
    tab.show_sheet(toy_base.name, "auto", "loras/ink.safetensors")
    assert asked == [str(toy_base)] * 3
    with pytest.raises(BaseModelError, match="There is no base model gone"):
        tab.show_sheet("gone", "auto", "loras/ink.safetensors")


def test_what_is_said_of_the_loras_stands_below_the_picture(tab: PreviewTab, drawn: list[Request]) -> None:
    said = tab.draw(given(tab, ("ink", 0.8, 1), ("wash", 1, 1)))[tab.told].split("\n\n")
    assert said[1:] == [f"**Warning:** {name} \\*was\\* trained elsewhere\\." for name in ("ink", "wash")]
    assert "\n\n" not in tab.draw(given(tab))[tab.told]
    assert len(drawn) == 3


def test_nothing_is_drawn_while_a_training_has_the_card(
    tab: PreviewTab, desk: Desk, drawn: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(desk.home.runs / "ink", desk.home.datasets, "starter", "balanced", None)  # type: ignore[arg-type]
    monkeypatch.setattr(type(desk.trainings), "living", lambda self: run)
    with pytest.raises(RunError, match="ink is being trained"):
        tab.draw(given(tab))
    with pytest.raises(RunError, match="ink is being trained"):
        tab.show_sheet("starter", "auto", "loras/ink.safetensors")
    assert drawn == []


def test_a_weight_draws_again_only_if_wanted(tab: PreviewTab, drawn: list[Request]) -> None:
    tab.draw_live(given(tab, ("ink", 1, 1), live=False))
    tab.draw_live(given(tab))
    assert drawn == []
    tab.draw_live(given(tab, ("ink", 1, 1)))
    assert len(drawn) == 2


def test_one_row_more_than_is_used_is_shown(tab: PreviewTab) -> None:
    def rows(*mix: tuple[str, float, float]) -> list[bool]:
        updates = tab.choose(given(tab, *mix))
        return [updates[slot.row]["visible"] for slot in tab.slots]

    assert rows() == [True, False, False, False]
    assert rows(("ink", 1, 1)) == [True, True, False, False]
    assert rows(("", 1, 1), ("ink", 1, 1)) == [True, True, True, False]


def test_the_trigger_words_of_the_mix_are_inserted_once(tab: PreviewTab) -> None:
    keys = [given(tab, ("ink", 1, 1), ("wash", 1, 1))[slot.choice] for slot in tab.slots]
    prompt = tab.with_trigger("a house", *keys)
    assert prompt == "inkish, washish, a house"
    assert tab.with_trigger(prompt, *keys) == prompt
    assert tab.with_trigger(" ", *keys) == "inkish, washish"


def test_what_is_gone_is_no_longer_offered(tab: PreviewTab, desk: Desk) -> None:
    (desk.home.loras / "ink.safetensors").unlink()
    updates = tab.refresh("loras/ink.safetensors", "loras/wash.safetensors")
    assert [update["value"] for update in updates] == ["", "loras/wash.safetensors"]
    with pytest.raises(LoraFileError):
        tab.request(given(tab, ("ink", 1, 1)))
    with pytest.raises(UsageError, match="Choose LoRA 1"):
        tab.show_sheet("starter", "auto", "")
