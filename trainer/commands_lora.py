"""What each command that makes or changes LoRA files does: arguments in, a result ready for JSON out.

Knows no torch before a command needs it. Progress and remarks go to stderr.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.bars import bar, reach
from trainer.bases.origin import FAMILIES, Origin, compare
from trainer.errors import UsageError
from trainer.home import Home
from trainer.lora import sidecar
from trainer.lora.contents import contents_of
from trainer.lora.edit import Edit, edit
from trainer.lora.paths import check_blocks
from trainer.lora.ways import Keep, Merging
from trainer.recipe import LoraChoice

Asked = argparse.Namespace
Result = dict[str, Any]


def mix(asked: Asked, home: Home) -> Result:
    """`impasto mix`."""
    import torch

    from trainer.lora.file import lossless
    from trainer.lora.lineage import of_merge
    from trainer.lora.merge import equalised, gathered, is_undone, is_whole, one_alpha

    out = _new_file(asked.out)
    how = Merging(asked.method, Keep(asked.rank, asked.energy), asked.density, asked.seed, asked.equal_strength)
    if len(asked.lora) < 2:
        raise UsageError("A mix takes at least two LoRAs: `impasto mix a.safetensors:0.8 b.safetensors:0.5 --out FILE`.")
    mix, sources = _sources(asked.lora)
    remarks = _told(_differences([(part.lora.name, Origin.told_by(part.lora.metadata)) for part in mix]))
    found = gathered(equalised(mix) if how.equal_strength else mix)
    made = _merged(found, how, "merging")
    if is_undone(found, made):
        remarks += _told(["These LoRAs cancel each other at these weights: the file changes nothing."])
    layers = one_alpha(made)
    matrices = (matrix for one in layers.values() for matrix in (one.up, one.down))
    dtype = lossless(matrices) if is_whole(found, how) else torch.float16
    more = "" if dtype is torch.float16 else " in float32, for float16 would lose some of it"
    told = _written(out, layers, of_merge(sources, how, out.stem, layers), dtype, more)
    return {**told, "method": how.method, "remarks": remarks}


def bake(asked: Asked, home: Home) -> Result:
    """`impasto bake`."""
    from trainer.bases.bake import bake as baked
    from trainer.bases.source import facts_at, place_of
    from trainer.lora.lineage import recipe

    out = _new_file(asked.out)
    place = place_of(str(asked.base)) or asked.base
    if place.is_dir():
        raise UsageError(f"{asked.base} is a folder: LoRAs are baked into a single file, so choose a .safetensors checkpoint.")
    base = Origin.of(facts_at(str(asked.base), place))
    mix, sources = _sources(asked.lora)
    made_on = [(part.lora.name, Origin.told_by(part.lora.metadata)) for part in mix]
    remarks = _told([remark.sentence for name, origin in made_on if (remark := compare(name, origin, base))])
    texts = {"modelspec.merged_from": ", ".join([base.name, *(part.lora.name for part in mix)])}
    with bar("baking", 1) as shown:

        def told(done: int, total: int) -> None:
            shown.total = total
            reach(shown, done)

        changed = baked(place, mix, out, {**texts, "impasto.recipe": recipe(sources, "bake")}, told)
    size = out.stat().st_size
    message = f"{out}: {base.name} with {changed} weights changed, {size / 1e9:,.2f} GB."
    return {"base": str(out), "changed": changed, "size": size, "remarks": remarks, "message": message}


def resize(asked: Asked, home: Home) -> Result:
    """`impasto resize`."""
    import torch

    from trainer.lora.lineage import Source, model_hash, of_resize
    from trainer.lora.merge import gathered, is_whole, one_alpha
    from trainer.lora.weights import Weighted

    out, how = _new_file(asked.out), Merging("svd", Keep(asked.rank, asked.energy))
    lora = _read(asked.file)
    layers, dtype, more = lora.factors, _type_of(lora), f": it had no more than rank {how.keep.rank}, and is as it was"
    if len(layers) < len(lora.layers) or any(layer.rank > (how.keep.rank or 0) for layer in layers.values()):
        found = gathered([Weighted(lora, 1.0, 1.0)])
        layers, more = one_alpha(_merged(found, how, "resizing")), ""
        dtype = torch.float32 if dtype is torch.float32 and is_whole(found, how) else torch.float16
    return _written(out, layers, of_resize(Source(lora, model_hash(asked.file)), how, out.stem, layers), dtype, more)


def export_lora(asked: Asked, home: Home) -> Result:
    """`impasto export`."""
    from trainer.lora.export import export

    out = _new_file(asked.out)
    count = export(_read(asked.file), asked.form, asked.only, out)
    message = f"{out}: {count} layers in the form of {asked.form}."
    return {"lora": str(out), "layers": count, "form": asked.form, "message": message}


def edit_lora(asked: Asked, home: Home) -> Result:
    """`impasto edit`."""
    contents_of(asked.file)  # only a LoRA is edited
    wanted = Edit(asked.title, asked.trigger, asked.description, asked.thumbnail, asked.weight)
    if not (texts := wanted.texts()):
        raise UsageError("Nothing to change: give --title, --trigger, --description, --thumbnail or --weight.")
    edit(asked.file, texts)
    sidecar.revise(asked.file, wanted.fields())
    told = ", ".join(key.split(".")[-1].replace("_", " ") for key in texts)
    return {
        "lora": str(asked.file),
        "changed": sorted(texts),
        "message": f"{asked.file}: {told} changed; its layers are as they were.",
    }


def _sources(given: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """The LoRAs of a mix with their weights, and what a recipe tells of them. Raises `UsageError`, `LoraFileError`."""
    from trainer.lora.lineage import Source, model_hash
    from trainer.lora.weights import Weighted

    choices = [LoraChoice.parse(text) for text in given]
    for choice in choices:
        if (choice.begin, choice.end) != (0, 1):
            raise UsageError(f"A file has no steps: leave out the @steps of {choice.path.name}.")
        check_blocks(dict(choice.blocks))
    mix, sources = [], []
    for choice in choices:
        part = Weighted(_read(choice.path), choice.unet, choice.text, dict(choice.blocks))
        mix.append(part)
        sources.append(Source(part.lora, model_hash(choice.path), part.unet, part.text, part.blocks))
    return mix, sources


def _merged(found: Mapping[str, Any], how: Merging, what: str) -> dict[str, Any]:
    """The layers of one LoRA made from what there is to be added in each, with a bar."""
    from trainer.lora.merge import merged

    layers = {}
    with bar(what, len(found)) as shown:
        for name, terms in found.items():
            layers[name] = merged(name, terms, how)
            reach(shown, len(layers))
    return layers


def _type_of(lora: Any) -> Any:
    """The type that holds the numbers of a plain LoRA's matrices; 8 bits fit into float16."""
    import torch

    types = {matrix.dtype for layer in lora.factors.values() for matrix in (layer.up, layer.down)}
    if types == {torch.bfloat16}:
        return torch.bfloat16
    return torch.float16 if types <= {torch.float16, torch.float8_e4m3fn, torch.float8_e5m2} else torch.float32


def _written(out: Path, layers: Any, metadata: dict[str, str], dtype: Any, more: str) -> Result:
    """Write a file that was merged or resized, and tell of it, with what `more` there is to say."""
    from trainer.lora.file import write

    write(out, layers, metadata, dtype)
    ranks, size = sorted({layer.rank for layer in layers.values()}), out.stat().st_size
    rank = f"rank {ranks[0]}" + (f" to {ranks[-1]}" if len(ranks) > 1 else "")
    return {
        "lora": str(out),
        "layers": len(layers),
        "ranks": ranks,
        "size": size,
        "message": f"{out}: {len(layers)} layers of {rank}, {size / 1e6:,.1f} MB{more}.",
    }


def _read(path: Path) -> Any:
    from trainer.lora.file import LoraFile

    return LoraFile.read(path)


def _new_file(out: Path) -> Path:
    """A file that is to be made. Raises `UsageError`."""
    if out.suffix.lower() != ".safetensors":
        raise UsageError(f"--out must name a .safetensors file, not {out.name}.")
    if out.exists():
        raise UsageError(f"{out} is there already: choose another name for --out, or delete it first.")
    return out


def _differences(origins: Sequence[tuple[str, Origin]]) -> list[str]:
    """What there is to say of LoRAs whose bases are of different families or predict different things."""
    found: list[str] = []
    (first, base), *others = origins
    for name, other in others:
        if base.family and other.family and base.family != other.family:
            theirs, ours = FAMILIES[base.family], FAMILIES[other.family]
            found.append(f"{first} was trained on {theirs} and {name} on {ours}: on either base, one of them will be off.")
        if base.prediction and other.prediction and base.prediction != other.prediction:
            found.append(f"The bases of {first} and {name} predict different things: on either, the colours of one are wrong.")
    return found


def _told(sentences: list[str]) -> list[str]:
    """The same, said on stderr too."""
    for sentence in sentences:
        print(f"Warning: {sentence}", file=sys.stderr)
    return sentences
