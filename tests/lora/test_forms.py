"""Every form's names, built from the modules of a base, against the golden names."""

from __future__ import annotations

import pytest
from torch import nn

from tests.lora.test_keys import GOLDEN, locon, sdxl
from trainer.lora.forms import Ignored, Key, Refused, other_base, read_key, what_it_is
from trainer.lora.keys import Component, table

START = {"unet": "unet.", "te1": "text_encoder.", "te2": "text_encoder_2."}


@pytest.fixture(scope="module")
def modules() -> dict[str, tuple[Component, str]]:
    """Every module that is in use, by its golden name: the part of the base and the path in it."""
    found: dict[str, tuple[Component, str]] = {}
    for component, model in sdxl():
        layers = [path for path, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
        found |= {name: (component, path) for name, path in table(component, layers).items()}
    assert found.keys() == GOLDEN.keys() | locon().keys() | {"lora_te2_text_projection"}
    return found


def old_text(path: str) -> str:
    for short in ("q", "k", "v", "out"):
        path = path.replace(f"self_attn.{short}_proj", f"self_attn.to_{short}")
    return path


def spelled(form: str, component: Component, path: str) -> str | None:
    """The key of a module's first matrix in a form; None where the form cannot name it."""
    flat, attention = path.replace(".", "_"), "attn" in path
    match form:
        case "kohya, diffusers' blocks":
            return f"lora_{component}_{flat}.lora_down.weight"
        case "diffusers":
            return f"{START[component]}{path}.lora.down.weight"
        case "PEFT in diffusers":
            return f"{START[component]}{path}.lora_A.weight"
        case "PEFT within a part":
            return f"{START[component]}base_model.model.{path}.lora_A.default.weight"
        case "PEFT alone":
            return f"base_model.model.{path}.lora_A.weight" if component == "unet" else None
        case "PEFT of all":
            return f"base_model.model.{START[component]}{path}.lora_A.weight"
        case "old diffusers" if component == "unet":
            processor = path.replace(".to_out.0", ".to_out").replace(".to_", ".processor.to_")
            return f"unet.{processor}_lora.down.weight" if attention else None
        case "old diffusers":
            return f"{START[component]}{old_text(path)}_lora.down.weight" if attention else None
        case "transformers":
            return f"{START[component]}{path}.lora_linear_layer.down.weight" if component != "unet" else None
        case "LyCORIS":
            return f"lycoris_{flat}.lora_down.weight" if component == "unet" else None
    raise AssertionError(form)


FORMS = {
    "kohya, diffusers' blocks": 1059, "diffusers": 1059, "PEFT in diffusers": 1059, "PEFT within a part": 1059,
    "PEFT of all": 1059, "PEFT alone": 794, "LyCORIS": 794, "old diffusers": 560 + 48 + 128, "transformers": 72 + 192 + 1,
}  # fmt: skip
"""And how many of SDXL's modules each can name."""


@pytest.mark.parametrize("form", FORMS)
def test_every_modules_name_in_a_form_is_read_as_ours(form: str, modules: dict[str, tuple[Component, str]]) -> None:
    asked = {name: key for name, (component, path) in modules.items() if (key := spelled(form, component, path))}
    assert len(asked) == FORMS[form]
    found = {name: read_key(key) for name, key in asked.items()}
    assert {name: tuple(key)[:2] for name, key in found.items() if key} == {name: (name, "down") for name in asked}


@pytest.mark.parametrize("flat", [False, True], ids=["text_model", "without text_model"])
def test_text_encoders_are_read_with_text_model_and_without(flat: bool, modules: dict[str, tuple[Component, str]]) -> None:
    for name, (component, path) in modules.items():
        if component == "unet" or "encoder" not in path:
            continue
        plain = path.removeprefix("text_model.")
        path = plain if flat else f"text_model.{plain}"
        for key in (f"{START[component]}{path}.lora_A.weight", f"lora_{component}_{path.replace('.', '_')}.lora_down.weight"):
            found = read_key(key)
            assert isinstance(found, Key)
            assert (found.name, found.component) == (name, component)


def test_our_own_names_and_comfyuis_are_those_of_the_blocks() -> None:
    for name in locon():
        assert read_key(f"{name}.lora_up.weight") == (name, "up", name.removeprefix("lora_unet_"))
    found = read_key("diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_out.0.lora_up.weight")
    assert found
    assert found[0] == "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_out_0"
    found = read_key("text_encoders.clip_g.transformer.text_model.encoder.layers.3.mlp.fc1.diff")
    assert found
    assert found[:2] == ("lora_te2_text_model_encoder_layers_3_mlp_fc1", "diff")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("lora_unet_input_blocks_4_1_proj_in.diff_b", "bias"),
        ("unet.down_blocks.1.attentions.0.proj_in.lora_B.bias", "bias"),
        ("lora_unet_input_blocks_4_1_norm.w_norm", "norm"),
        ("bundle_emb.token.clip_l", "embedding"),
        ("base_model.model.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight", "which of SDXL's two"),
    ],
)
def test_what_is_left_aside_has_a_reason(key: str, reason: str) -> None:
    found = read_key(key)
    assert isinstance(found, Ignored)
    assert reason in found.reason or "which" in reason


@pytest.mark.parametrize(
    ("key", "kind"),
    [("lora_unet_out_2.oft_blocks", "OFT"), ("lora_unet_out_2.on_input", "IA3"), ("lora_unet_out_2.a1.weight", "GLoRA")],
)
def test_kinds_that_are_not_read_are_known(key: str, kind: str) -> None:
    assert read_key(key) == Refused(kind)


@pytest.mark.parametrize(
    "key",
    [
        "", ".", "lora_unet_", "alpha", "lora_unet_input_blocks_12_1_transformer_blocks_0_attn1_to_q.alpha",
        "unet.down_blocks.3.attentions.0.proj_in.lora_A.weight", "lora_te1_text_model_encoder_layers_x_mlp_fc1.alpha",
        "lora_unet_input_blocks_4_1.alpha", "down_blocks.1.attentions.0.proj_in.weight", "lora_te1_text_projection.diff",
    ],
)  # fmt: skip
def test_other_names_are_unknown(key: str) -> None:
    assert read_key(key) is None


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.alpha", "Stable Diffusion 1.5"),
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "Stable Diffusion 1.5"),
        ("unet.up_blocks.3.attentions.0.proj_in.lora_A.weight", "Stable Diffusion 1.5"),
        ("diffusion_model.input_blocks.1.1.proj_in.lora_up.weight", "Stable Diffusion 1.5"),
        ("lora_unet_double_blocks_0_img_attn_proj.lora_down.weight", "Flux"),
        ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", "Flux"),
        ("lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight", "Stable Diffusion 3"),
        ("transformer.transformer_blocks.0.attn.to_q.lora_A.weight", "Stable Diffusion 3"),
        ("diffusion_model.blocks.0.attn.lora_A.weight", "another kind of model"),
        ("diffusion_model.transformer_blocks.0.attn.lora_A.weight", "another kind of model"),
        ("base_model.model.blocks.0.attn.lora_A.weight", "another kind of model"),
        ("lora_transformer_transformer_blocks_0_attn_to_q.lora_down.weight", "another kind of model"),
    ],
)
def test_loras_for_other_bases_are_known_by_a_name(key: str, what: str) -> None:
    assert what in str(other_base(["lora_unet_out_2.alpha", key]))
    assert what in str(what_it_is([key]))


def test_no_name_of_sdxl_is_taken_for_another_bases(modules: dict[str, tuple[Component, str]]) -> None:
    keys = [spelled(form, component, path) for form in FORMS for component, path in modules.values()]
    assert other_base([*(key for key in keys if key), *GOLDEN, *locon()]) is None
