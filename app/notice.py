"""What can go wrong, told in the page as a sentence; and any text shown as what it is, never as markup."""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import gradio as gr

from app.form import in_page_words
from trainer.errors import ImpastoError

P = ParamSpec("P")
R = TypeVar("R")


def told(handler: Callable[P, R]) -> Callable[P, R]:
    """The same handler of an event; an `ImpastoError` becomes a notice and changes nothing else in the page."""

    @functools.wraps(handler)
    def handle(*given: P.args, **named: P.kwargs) -> R:
        try:
            return handler(*given, **named)
        except ImpastoError as error:
            raise gr.Error(html.escape(in_page_words(str(error))), print_exception=False) from error

    return handle


def literal(text: str) -> str:
    """`text` for a Markdown component, every sign of it shown as it is."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))
