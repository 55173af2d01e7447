import pytest

from app.form import Form, label, shown
from app.tabs.train import SETTINGS
from trainer import presets
from trainer.errors import SettingsError
from trainer.settings import Settings


def test_every_input_has_the_schemas_help() -> None:
    form = Form(SETTINGS)
    for name, field in form.fields.items():
        assert field.info == Settings.model_fields[name].description
        assert field.label == label(name)


def test_what_is_filled_in_lies_over_the_preset() -> None:
    form = Form(("steps", "rank", "unet_lr"))
    given = {form.fields["steps"]: " 20 ", form.fields["rank"]: "", form.fields["unet_lr"]: "2e-4"}
    overrides = form.overrides(given)
    assert overrides == {"steps": "20", "unet_lr": "2e-4"}
    settings = presets.load("balanced").settings("sdxl", overrides)
    assert (settings.steps, settings.unet_lr) == (20, 2e-4)
    assert settings.rank == presets.load("balanced").settings("sdxl").rank


def test_nonsense_is_refused_by_the_setting_it_is_in() -> None:
    form = Form(("steps",))
    with pytest.raises(SettingsError, match="steps"):
        presets.load("balanced").settings("sdxl", form.overrides({form.fields["steps"]: "many"}))


def test_the_presets_values_show_through() -> None:
    assert shown("steps", presets.load("balanced").settings("sdxl")).endswith("passes per picture")
    starter = presets.load("balanced").settings("starter")
    assert [update["placeholder"] for update in Form(("steps", "rank")).placeholders("balanced", "starter")] == [
        str(starter.steps), str(starter.rank)
    ]  # fmt: skip


def test_a_setting_with_few_values_offers_them() -> None:
    form = Form(("precision", "rank"))
    field = form.fields["precision"]
    assert [value for _, value in field.choices] == ["", "auto", "fp32", "bf16", "fp16", "int8", "nf4"]
    assert form.overrides({field: "", form.fields["rank"]: ""}) == {}
    assert form.overrides({field: "nf4", form.fields["rank"]: ""}) == {"precision": "nf4"}
