"""`impasto generate`: what is asked for, on top of a picture's recipe or of what is usual on the base, drawn and written.

Knows no torch before it draws. Progress goes to stderr.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer import presets
from trainer.bars import bar, reach
from trainer.commands import Asked, Result, loaded, told_remarks
from trainer.errors import UsageError, storing
from trainer.home import Home
from trainer.lora.contents import contents_of
from trainer.lora.paths import check_blocks
from trainer.recipe import LoraChoice, Request, infotext, is_own, recipe_of, write_png

MOST = 100
"""Pictures of one command."""


def generate(asked: Asked, home: Home) -> Result:
    """`impasto generate`."""
    places = _places(asked.out, asked.count)
    _check_kept(places, asked.origin)
    said = _said(asked)
    origin, source = _origin(asked, said, home)
    loras = tuple(LoraChoice.parse(given) for given in asked.lora) or (origin.loras if origin else ())
    for choice in loras:  # what is wrong is told of before a base is loaded
        contents_of(choice.path)
        check_blocks(dict(choice.blocks))
    replace(origin or Request(""), loras=loras, **said)
    _check_writable(places)
    previewer = loaded(source)
    request = replace(origin or _usual(previewer.base), loras=loras, **said)
    requests = [replace(request, seed=request.seed + number) for number in range(asked.count)]
    previewer.lay(request.loras, request.equal_strength)
    remarks = told_remarks(previewer.remarks(loras, request.prediction, home.cache))
    with bar("drawing", request.steps * len(requests)) as shown:
        for number, each in enumerate(requests):
            for drawn in previewer.draw(each):
                reach(shown, number * request.steps + drawn.step)
            write_png(places[number], drawn.picture, infotext(each, source))
    written = [str(place) for place in places]
    return {"picture": written[0], **request.to_json(), "remarks": remarks, "pictures": written}


def _places(out: Path, count: int) -> list[Path]:
    """The files to write: `a.png`, or `a-1.png`, `a-2.png` … Raises `UsageError`."""
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out must name a .png file, not {out.name}.")
    if not 1 <= count <= MOST:
        raise UsageError(f"--count must be from 1 to {MOST}, not {count}.")
    return [out] if count == 1 else [out.with_name(f"{out.stem}-{number}{out.suffix}") for number in range(1, count + 1)]


def _check_kept(places: Sequence[Path], origin: Path | None) -> None:
    """Refuse to write over any other file than a picture that was drawn here, and over the one of `--from`."""
    for place in places:
        if origin and origin.exists() and place.exists() and place.samefile(origin):
            raise UsageError(f"--out would replace {origin}, which is drawn from: choose another name for --out.")
        if place.exists() and not is_own(place):
            raise UsageError(f"{place} is there already, and not drawn by Impasto: choose another name for --out.")


def _check_writable(places: Sequence[Path]) -> None:
    """Raise `StorageError` if no file can be made there."""
    with storing(places[0]):
        places[0].parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=places[0].parent).close()


def _origin(asked: Asked, said: Mapping[str, Any], home: Home) -> tuple[Request | None, str]:
    """The recipe of the picture that was named, if any, and the base to draw on. Raises `UsageError`, `BaseModelError`."""
    if asked.origin is None:
        if asked.prompt is None:
            raise UsageError("Say what to draw: `impasto generate PROMPT --out PNG`, or name a picture with --from.")
        return None, asked.base or "starter"
    request, named = recipe_of(asked.origin, [asked.origin.parent, Path(), home.loras], said)
    gone = next((choice.path for choice in request.loras if not choice.path.is_file()), None)
    if gone and not asked.lora:
        raise UsageError(
            f"The picture was drawn with {gone}, which is not beside it, not in this folder, and not in {home.loras}: "
            "put it there, or name it, or another one, with --lora."
        )
    return request, asked.base or _base_named(named, home)


def _base_named(name: str, home: Home) -> str:
    """The base that a recipe names: one here, one in the library, or one of the Hub. Raises `UsageError`, `BaseModelError`."""
    from trainer.bases.library import Bases
    from trainer.bases.source import place_of

    if place_of(name):
        return name
    known = (found for found in Bases(home).found() if found.facts)
    here = next((found for found in known if found.path.name.removesuffix(".safetensors") == name), None)
    if here is None and "/" not in name:
        told = f"was drawn on {name}, which is not among your bases" if name else "does not say on which base it was drawn"
        raise UsageError(f"The picture {told}: name the base to draw on with --base.")
    return str(here.path) if here else name


def _said(asked: Asked) -> dict[str, Any]:
    """What was said on the command line of a request. Raises `UsageError`."""
    names = ("prompt", "negative", "seed", "steps", "cfg", "sampler", "prediction", "equal_strength")
    said = {name: getattr(asked, name) for name in names if getattr(asked, name) is not None}
    return {**said, **(_size(asked.size) if asked.size else {})}


def _usual(base: Any) -> Request:
    """A request as it is usual on a base."""
    usual = presets.load(presets.DEFAULT).settings(base.family)
    return Request("", steps=usual.sample_steps, cfg=usual.sample_cfg, width=base.resolution, height=base.resolution)


def _size(text: str) -> dict[str, int]:
    width, cross, height = text.lower().replace("×", "x").partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise UsageError(f"--size takes WIDTHxHEIGHT, such as 1024x1024, not {text!r}.")
    return {"width": int(width), "height": int(height)}
