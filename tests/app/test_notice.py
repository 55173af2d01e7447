import gradio as gr
import pytest

from app.notice import literal, told
from trainer.errors import DatasetError
from trainer.settings_text import validated


def test_an_error_for_a_person_becomes_a_notice_without_markup() -> None:
    def handler() -> None:
        raise DatasetError("No <b>bold</b> picture.")

    with pytest.raises(gr.Error) as noticed:
        told(handler)()
    assert noticed.value.message == "No &lt;b&gt;bold&lt;/b&gt; picture."


def test_a_setting_is_called_as_in_the_page() -> None:
    with pytest.raises(gr.Error) as noticed:
        told(validated)({"unet_lr": "much"})
    assert noticed.value.message.startswith("U-Net learning rate (unet_lr) must be")


def test_a_fault_of_ours_stays_one() -> None:
    def handler() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        told(handler)()


def test_literal_takes_the_meaning_from_every_sign() -> None:
    assert literal("a *b* <img> [c](d)\n# e $f$ 5_6") == (r"a \*b\* \<img\> \[c\]\(d\) \# e \$f\$ 5\_6")
    assert literal("Grün, 3 Bäume") == "Grün\\, 3 Bäume"
