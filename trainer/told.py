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
    """What files hold, or a sentence for one that cannot be told."""
    lines: list[str] = []
    for file in result.get("files", [result]):
        if "error" in file:
            lines.append(file["error"])
        else:
            lines += [_told_base(file)] if "family" in file else _told_lora(file)
    return lines


def any_unknown(result: Result) -> bool:
    """Whether one of several inspected files could not be told."""
    return any("error" in file for file in result.get("files", []))


def _told_lora(file: Result) -> list[str]:
    return [
        f"{file['name']}",
        f"  base     {file['base'] or 'not told'}",
        f"  trigger  {file['trigger'] or 'none'}",
        "  layers   " + ", ".join(f"{part} {count}" for part, count in file["modules"].items()),
        "  rank     " + ", ".join(f"{rank} ({count} layers)" for rank, count in file["ranks"].items()),
        "  alpha    " + ", ".join(file["alphas"]),
        "  change   " + ", ".join(f"{part} {size:.4g}" for part, size in file["change"].items()),
    ]
