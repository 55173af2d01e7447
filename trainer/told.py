"""What a command's result is told as, in lines for a person. Knows results alone, nothing of the engine."""

from __future__ import annotations

from typing import Any

STARTER_NOTE = "This LoRA is only for the starter base: it does nothing useful in SDXL."

Result = dict[str, Any]


def told_training(result: Result) -> list[str]:
    """A training that has ended, or that goes on in another process."""
    if result["state"] == "training":
        return [f"{result['run']} goes on after {result['steps']} steps."]
    if not result["lora"]:
        start = f"the checkpoint at step {result['checkpoint']}" if result["checkpoint"] else "its start"
        return [f"Cancelled after step {result['steps']}; `impasto resume {result['run']}` goes on from {start}."]
    lines = [f"{result['state'].capitalize()} after {result['steps']} steps: {result['lora']}"]
    if "layers" in result:
        lines.append(
            f"Read back and whole: {result['layers']} layers, {result['size'] / 1e6:,.1f} MB; "
            f"{result['share']:.2%} of the base's weights were trained."
        )
    return lines + ([STARTER_NOTE] if result["base"] == "starter" else [])


def told_message(result: Result) -> list[str]:
    """What is a sentence already."""
    return [result["message"]]


def told_demo(result: Result) -> list[str]:
    """The demo: where its LoRA and its sheet are."""
    return [
        f"The LoRA:  {result['lora']}",
        f"The sheet: {result['sheet']}   (the base above, the LoRA at half and at full weight below)",
        STARTER_NOTE,
        "Open the page with your own pictures: impasto",
    ]


def told_bases(result: Result) -> list[str]:
    """The bases there are, and what was found beside them."""
    lines = [f"{_told_base(base)}   {base['path']}" for base in result["bases"]]
    lines += [f"not a base: {other['reason']}" for other in result["others"]]
    folders = ", ".join(result["folders"])
    return lines or [f"No base models in {folders}. Name the folder that yours lie in: impasto bases --add DIR"]


def _told_base(base: Result) -> str:
    predicts = {"epsilon": "epsilon", "v_prediction": "v"}[base["prediction"]]
    zero = ", zero terminal SNR" if base["zero_terminal_snr"] else ""
    return f"{base['name']}: {base['family']}, predicts {predicts}{zero}"


def told_inspection(result: Result) -> list[str]:
    """What files hold, or a sentence for one that cannot be told; and how LoRAs stand to each other."""
    lines: list[str] = []
    for file in result.get("files", [result]):
        if "error" in file:
            lines.append(file["error"])
        else:
            lines += [_told_base(file)] if "family" in file else _told_lora(file)
    for pair in result.get("overlaps", []):
        lines += _told_overlap(pair)
    return lines


def any_unknown(result: Result) -> bool:
    """Whether one of several inspected files could not be told."""
    return any("error" in file for file in result.get("files", []))


_TEXTS = {"title": "modelspec.title", "about": "modelspec.description", "best at": "impasto.preferred_weight"}
"""What a LoRA may tell of itself, and by what names."""


def _told_lora(file: Result) -> list[str]:
    texts = {name: file["metadata"].get(key, "") for name, key in _TEXTS.items()}
    ranks = (f"{rank if rank != '0' else 'none'} ({count} layers)" for rank, count in file["ranks"].items())
    lines = [
        f"{file['name']}",
        *(f"  {name:<8} {text}" for name, text in texts.items() if text),
        f"  base     {file['base'] or 'not told'}",
        f"  trigger  {file['trigger'] or 'none'}",
        "  layers   " + ", ".join(f"{part} {count}" for part, count in file["modules"].items()),
        "  kind     " + ", ".join(f"{kind} ({count} layers)" for kind, count in file["kinds"].items()),
        "  rank     " + ", ".join(ranks),
        "  alpha    " + (", ".join(file["alphas"]) or "none"),
        *(f"  ignored  {count} tensors: {reason}" for reason, count in file["ignored"].items()),
        *(f"  unknown  {key}" for key in file["unknown"][:20]),
        *([f"  unknown  and {more} more"] if (more := len(file["unknown"]) - 20) > 0 else []),
    ]
    if file["anatomy"]["blocks"]:
        lines.append("  change   " + ", ".join(f"{part} {size:.4g}" for part, size in file["change"].items()))
    return lines + _told_anatomy(file["anatomy"], file["size"])


def _told_anatomy(anatomy: Result, size: int) -> list[str]:
    """Where a LoRA's change is, and what rank it needs."""
    lines: list[str] = []
    *fewer, most = anatomy["holding"]
    if most["rank"]:
        starts = ["  where    ", *("           " for _ in anatomy["blocks"])]
        lines += [
            f"{start}{block['block']:<9} {block['share']:>4.0%}  {block['diffusers']}".rstrip()
            for start, block in zip(starts, anatomy["blocks"], strict=False)
        ]
        now, then = (f"{number / 1e6:,.1f} MB" for number in (size, most["bytes"] or size))
        less = f": {now} -> {then}" if then != now else ""
        held = ", ".join(f"{one['share']:.0%}: rank {one['rank']}" for one in reversed(fewer))
        needed = [layer["ranks"][-1] for layer in anatomy["layers"].values()]
        ends = " to ".join(map(str, sorted({min(needed), max(needed)})))
        lines += [
            f"  spectrum rank {most['rank']} holds {most['share']:.0%} of the change{less} ({held})",
            f"           {most['share']:.0%} of each layer alone: rank {ends}",
        ]
    elif anatomy["blocks"]:
        lines.append("  spectrum empty: it changes nothing")
    if left_out := len(anatomy["left_out"]):
        lines.append(
            f"  left out {left_out} of {left_out + len(anatomy['layers'])} layers: what a DoRA changes depends on the base"
        )
    return lines


def _told_overlap(pair: Result) -> list[str]:
    """How two LoRAs stand to each other; a cosine of 1 is the same, of 0 unrelated, of -1 the opposite."""
    if pair["verdict"] == "unknown" or not pair["blocks"]:
        return [pair["sentence"]]
    least, most = (end(pair["blocks"], key=lambda block: block["cosine"]) for end in (min, max))
    ends = f"from {least['cosine']:z.2f} in {least['block']} to {most['cosine']:z.2f} in {most['block']}"
    return [pair["sentence"], f"  cosine   {pair['cosine']:z.2f}, {ends}"]


def told_mixing(result: Result) -> list[str]:
    """What mixing costs, as a table."""
    lines = [
        f"{result['base']} on {result['device']}, LoRAs of rank {result['rank']}; seconds, and shares of the base's step",
        f"{'':<16}{result['mixed']} LoRAs mixed anew   a step with {result['drawn']} LoRAs",
    ]
    for way in result["ways"]:
        mixed = f"{way['remix']:9.4f} {way['remix_in_steps']:6.2f}" if way["remix"] is not None else " " * 16
        lines.append(f"{way['way']:<16}{mixed:<21}{way['step']:9.4f} {way['step_ratio']:6.2f}")
    if len(result["ways"]) == 2:
        lines.append("diffusers' ways need PEFT: pip install peft")
    return lines
