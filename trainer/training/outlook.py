"""What a training will be, told before it starts: `impasto plan`. Loads no weights, and no torch if everything is counted
and the memory is named.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from trainer.bases.source import Facts
from trainer.data.buckets import Placement
from trainer.data.crops import box
from trainer.data.dataset import Dataset, Picture, prior_pictures
from trainer.home import Home
from trainer.sdxl.memory import reserve
from trainer.settings import Settings
from trainer.training.fit import Fit, Job, Option, Rung, draw_fit, fit, size
from trainer.training.machine import Machine, example, machine_of, parse_memory
from trainer.training.plan import MEASURED_TIMES, Plan


def outlook(dataset: Dataset, facts: Facts, settings: Settings, memory: str | None, home: Home) -> dict[str, Any]:
    """The plan of a training and its fit, as one JSON object. Raises `UsageError` for a memory that is no size."""
    machine = _machine(memory)
    facts = facts.overruled(settings.family, settings.prediction)
    plan = Plan.of(dataset, settings, prior=prior_pictures(settings.prior_dataset))
    job = Job.of(settings, plan, facts, home.cache)
    found = fit(job, machine)
    counts = job.counts(machine)
    lora = counts.lora()
    way, drawable = draw_fit(counts, machine.free, machine.native)
    return {
        "pictures": plan.distinct,
        "base": facts.name,
        "family": facts.family,
        "steps": plan.steps,
        "passes": round(plan.passes(settings.accumulation), 1),
        "batch": plan.batch,
        "accumulation": settings.accumulation,
        "held_out": len(plan.held_out),
        "resolution": settings.resolution,
        "buckets": plan.buckets,
        "crops": [_of_crop(entry.picture, entry.placement) for entry in dict.fromkeys(plan.pictures)],
        "machine": {"name": machine.name, "free": machine.free, "there": machine.there},
        "fits": found.fits,
        **_of_option(found.chosen),
        "sentence": found.sentence,
        "remark": found.remark,
        "text_away": job.text_once and machine.card,
        "memory": {**dataclasses.asdict(found.chosen.needs), "reserve": reserve(found.chosen.needs.peak)},
        "above": _of_option(found.above) if found.above else None,
        "below": _of_option(found.below) if found.below else None,
        "ladder": [_of_option(option) for option in found.ladder],
        "seconds": round(_seconds(found, plan, machine)),
        "flops": {"forward": counts.guided().flops // 2, "step": counts.step(found.chosen.rung.recompute).flops},
        "lora": {
            "parameters": lora,
            "share": sum(lora.values()) / counts.parameters(),
            "bytes": 2 * sum(lora.values()),
        },
        "drawing": {"fits": drawable, "total": way.total, **dataclasses.asdict(way)},
    }


def _machine(memory: str | None) -> Machine:
    if memory is not None:
        return example(parse_memory(memory))
    from trainer.sdxl.device import best_device

    return machine_of(best_device())


def _of_crop(picture: Picture, placement: Placement) -> dict[str, Any]:
    return {
        "name": picture.path.name,
        "scaled": placement.scaled,
        "box": placement.box,
        "seen": [round(share, 4) for share in box(placement)],
        "lost": round(placement.lost, 4),
        "upscale": round(placement.upscale, 4),
        "mirrored": placement.mirrored,
    }


def _of_option(option: Option) -> dict[str, Any]:
    return {
        "precision": option.rung.precision,
        "recompute": option.rung.recompute,
        "total": option.needs.total,
        "seconds_per_step": round(option.seconds, 4),
    }


def _seconds(found: Fit, plan: Plan, machine: Machine) -> float:
    """Everything: encoding the pictures, the steps, the samples."""
    settings = found.job.settings
    counts, side = found.job.counts(machine), settings.resolution
    encoding = machine.seconds(counts.encode(side), single=True) * len(plan.pictures)
    sample = settings.sample_steps * machine.seconds(counts.guided()) + machine.seconds(counts.decode(side), single=True)
    rounds = 1 + math.ceil(plan.steps / settings.sample_every) if settings.sample_every else 0
    prompts = (len(settings.sample_prompts) or min(2, plan.distinct)) * (2 if settings.sample_untriggered else 1)
    measured = (1 + math.ceil(plan.steps / settings.validate_every)) * len(plan.held_out) * MEASURED_TIMES
    measuring = measured * machine.seconds(counts.guided()) / 2  # which is of a picture with and without its prompt
    return encoding + plan.steps * found.chosen.seconds + rounds * prompts * sample + measuring


_ITEMS = {
    "weights": "base",
    "vae": "VAE",
    "lora": "LoRA",
    "optimizer": "optimizer",
    "average": "average",
    "activations": "activations",
    "working": "working set",
    "reserve": "reserve",
    "pictures": "samples",
}


_TEXT_AWAY = "Text is encoded once: the text encoders are on the card only then, and for the prompts of samples."


def told_outlook(result: dict[str, Any]) -> list[str]:
    """The outlook as lines for a person."""
    memory, lora, machine = result["memory"], result["lora"], result["machine"]
    kind = "" if machine["there"] else " (an example of a card of this size)"
    several = f" x {result['accumulation']}" if result["accumulation"] > 1 else ""
    return [
        f"{result['pictures']} pictures, {result['steps']} steps of {result['batch']}{several}, "
        f"each picture about {result['passes']:g} times, on the base {result['base']} ({result['family']}).",
        "  buckets    " + ", ".join(f"{bucket} ({count})" for bucket, count in result["buckets"].items()),
        result["sentence"],
        *filter(None, [result["remark"], _TEXT_AWAY if result["text_away"] else None]),
        *(f"  {name:<11}{size(memory[key]):>9}" for key, name in _ITEMS.items() if memory[key] or key != "average"),
        *(f"  {_told_option(result[which], which)}" for which in ("above", "below") if result[which]),
        *_told_crops(result["crops"]),
        f"Time: about {_duration(result['seconds_per_step'])} a step and {_duration(result['seconds'])} in all on "
        f"{machine['name']}{kind}; an estimate.",
        f"LoRA: {sum(lora['parameters'].values()):,} parameters, {100 * lora['share']:.2f} % of the base; "
        f"its file has {lora['bytes'] / 1e6:.1f} MB.",
        _told_drawing(result["drawing"], result["resolution"]),
    ]


def _told_crops(crops: list[dict[str, Any]]) -> list[str]:
    """A line if a picture loses much, and one if some are so small that they are enlarged."""
    worst, enlarged = max(crops, key=lambda crop: crop["lost"]), {crop["name"] for crop in crops if crop["upscale"] > 1}
    lines = []
    if worst["lost"] > 0.1:
        lines.append(f"Cropped: {worst['name']} loses most, {100 * worst['lost']:.0f} % of it; --json lists every crop.")
    if enlarged:
        most = max(crop["upscale"] for crop in crops)
        lines.append(f"Enlarged: {len(enlarged)} of the pictures, at most to {most:.2f} times their size.")
    return lines


def _told_option(option: dict[str, Any], which: str) -> str:
    rung, more = Rung(option["precision"], option["recompute"]), "more" if which == "above" else "less"
    return f"with {more} memory: {rung}, {size(option['total'])}, {_duration(option['seconds_per_step'])} a step"


def _told_drawing(drawing: dict[str, Any], side: int) -> str:
    how = [
        "the VAE in tiles" if drawing["tiled"] else "",
        "copies of the mixed layers in the computer's memory" if drawing["copies_away"] else "",
        "text encoders and VAE on the card only while they are needed" if drawing["visiting"] else "",
    ]
    words = ", ".join(filter(None, how)) or "everything at once"
    verdict = "fits in" if drawing["fits"] else "does not fit: it needs"
    return f"Drawing at {side} px with a LoRA {verdict} {size(drawing['total'])}, {words}."


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
