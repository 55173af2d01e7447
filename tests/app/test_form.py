import gradio as gr
import pytest

from app.form import Form, choices, in_page_words, label, shown, title
from app.tabs.train import WITH_THE_DATASET
from tests.app.conftest import built, in_blocks
from trainer import presets
from trainer.errors import SettingsError
from trainer.settings import GROUPS, Loading, Main, Settings, Watching
from trainer.settings_text import validated


@pytest.fixture
def form() -> Form:
    return in_blocks(lambda: Form(GROUPS, WITH_THE_DATASET))


def given(form: Form, **values: str) -> dict[object, str]:
    """The form's inputs: empty but for `values`."""
    return {field: values.get(name, "") for name, field in form.fields.items()}


def test_every_setting_is_in_the_page_and_few_are_in_sight(form: Form) -> None:
    assert set(form.fields) | set(WITH_THE_DATASET) == set(Settings.model_fields)
    folded = [field for _, fields in form.folds for field in fields]
    assert len(form.components) - len(folded) <= 10
    assert [panel.label for panel, _ in form.folds] == [title(group) for group in GROUPS[1:]]
    assert not any(panel.open for panel, _ in form.folds)


def test_every_input_has_the_schemas_help(form: Form) -> None:
    for name, field in form.fields.items():
        assert field.info == Settings.model_fields[name].description
        assert field.label == label(name)
    assert len({field.label for field in form.components}) == len(form.components)


def test_what_is_filled_in_lies_over_the_preset(form: Form) -> None:
    overrides = form.overrides(
        given(form, steps=" 20 ", unet_lr="2e-4", rslora="true", block_ranks="mid_block=0 | up_blocks.0=8")
    )
    assert overrides == {"steps": "20", "unet_lr": "2e-4", "rslora": "true", "block_ranks": "mid_block=0 | up_blocks.0=8"}
    settings = presets.load("balanced").settings("sdxl", overrides)
    assert (settings.steps, settings.unet_lr, settings.rslora) == (20, 2e-4, True)
    assert settings.block_ranks == ("mid_block=0", "up_blocks.0=8")
    assert settings.rank == presets.load("balanced").settings("sdxl").rank


@pytest.mark.parametrize(("name", "nonsense"), [("steps", "many"), ("warmup", "2"), ("resolutions", "1|2"), ("ema", "1")])
def test_nonsense_is_refused_by_the_setting_it_is_in(form: Form, name: str, nonsense: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} must be"):
        presets.load("balanced").settings("sdxl", form.overrides(given(form, **{name: nonsense})))


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        ("unet_lr must be a number, not x.", "U-Net learning rate (unet_lr) must be a number, not x."),
        ("rank must be a whole number.", "Rank must be a whole number."),
        ("timestep_max, 5, must not be below 9.", "Highest time step (timestep_max), 5, must not be below 9."),
        ("block_ranks must name each block once.", "Block ranks (block_ranks) must name each block once."),
        ("rank is being trained: wait.", "rank is being trained: wait."),
        ("prints must not be empty.", "prints must not be empty."),
    ],
)
def test_a_sentence_about_a_setting_names_its_label(sentence: str, shown: str) -> None:
    assert in_page_words(sentence) == shown


def test_the_presets_values_show_through() -> None:
    form = in_blocks(lambda: Form((Main, Loading)))
    updates = dict(zip(form.fields, form.placeholders("balanced", "starter"), strict=True))
    starter = presets.load("balanced").settings("starter")
    assert (updates["steps"]["placeholder"], updates["rank"]["placeholder"]) == (str(starter.steps), str(starter.rank))
    assert updates["precision"]["choices"][0] == ("auto (preset)", "")


def test_a_value_is_shown_as_one_would_type_it_or_in_a_word() -> None:
    settings = validated({"sample_prompts": "a|b", "flip": True, "unet_lr": 3e-5})
    named = {
        name: shown(name, settings) for name in ("steps", "sample_prompts", "flip", "unet_lr", "resolutions", "prior_dataset")
    }
    assert named == {
        "steps": "60 passes per picture", "sample_prompts": "a|b", "flip": "yes", "unet_lr": "3e-05", "resolutions": "none",
        "prior_dataset": "none",
    }  # fmt: skip


def test_a_setting_with_few_values_offers_them() -> None:
    form = in_blocks(lambda: Form((Loading, Watching)))
    field = form.fields["precision"]
    assert [value for _, value in field.choices] == ["", "auto", "fp32", "bf16", "fp16", "int8", "nf4"]
    assert form.overrides(given(form)) == {}
    assert form.overrides(given(form, precision="nf4")) == {"precision": "nf4"}
    assert form.fields["tensorboard"].choices == [("no (preset)", ""), ("yes", "true"), ("no", "false")]


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if choices(name)])
def test_every_choice_is_a_value_of_its_setting(name: str) -> None:
    for _, value in choices(name):
        assert getattr(validated({name: value}), name) in (value, value == "true")


def test_each_group_counts_what_is_changed_in_it_and_the_whole_form_all() -> None:
    def page() -> tuple[Form, gr.Blocks]:
        with gr.Blocks(analytics_enabled=False) as blocks:
            with gr.Accordion("Settings") as around:
                form = Form(GROUPS, WITH_THE_DATASET)
            form.connect(around)
        return form, blocks

    form, blocks = built(page)
    told = {event.outputs[0].label: event for event in blocks.fns.values()}
    assert list(told) == [*(panel.label for panel, _ in form.folds), "Settings"]
    assert told["Settings"].inputs == form.components
    assert all(f"`{name} · ${{changed}} changed`" in str(event.js) for name, event in told.items())
