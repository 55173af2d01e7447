"""Names in a file -> modules, against the names that are in use."""

from __future__ import annotations

from tests.lora.test_keys import GOLDEN, locon
from trainer.lora.keys import file_name
from trainer.lora.paths import place_of


def test_every_name_in_use_has_a_module() -> None:
    for name in GOLDEN.keys() | locon().keys():
        place = place_of(name)
        assert place is not None
        assert file_name(*place) == name
    assert place_of("lora_unet_input_blocks_4_1_transformer_blocks_99_attn1_to_q") is None
