"""A run's progress as what is shown: sentences, a bar, samples. Functions of `Progress`, and of what lies in the run's folder.

Markup is made from numbers alone; text that people or files gave goes into Markdown, every sign of it literal.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from app.notice import literal
from trainer.data.captions import with_trigger
from trainer.sdxl.prompt import literal as literal_prompt
from trainer.training.events import Sampled
from trainer.training.outlook import told_outlook
from trainer.training.progress import Progress
from trainer.training.run import Run, Wish

Situation = Literal[
    "starting", "encoding", "training", "pausing", "paused", "stopping", "cancelling", "stopped", "finished", "failed", "lost"
]  # fmt: skip
UNDER_WAY: tuple[Situation, ...] = ("encoding", "training", "pausing", "paused", "stopping", "cancelling")
"""Those in which a run's buttons have their places, whether they can be pressed or not."""
MOST_PROMPTS = 4
MOST_SAMPLES = 8
"""Pictures of one prompt; of several prompts each has four, a row of the gallery."""
STARTER_NOTE = "This LoRA is *only for the starter base*: it does nothing useful in SDXL."


def situation(progress: Progress, alive: bool, starting: bool, wishes: Collection[Wish]) -> Situation:
    """What is going on: the log tells the state, the process whether it is still true, its wishes what comes next."""
    if starting:
        return "starting"
    match progress.state:
        case "stopped" | "finished" | "failed" as over:
            return over
        case _ if not alive:
            return "lost"
        case _ if "cancel" in wishes:
            return "cancelling"
        case _ if "stop" in wishes:
            return "stopping"
        case "training" if "pause" in wishes:
            return "pausing"
        case "waiting":
            return "starting"
        case under_way:
            return under_way


def possible(now: Situation, alive: bool, wishes: Collection[Wish]) -> frozenset[str]:
    """What a person can do about a run now: the wishes that its process would hear, `go_on` with a pause, `resume`."""
    if now in ("stopped", "failed", "lost"):
        return frozenset({"resume"})
    if not alive or now not in ("encoding", "training", "pausing", "paused"):
        return frozenset()
    waits = "pause" in wishes and now != "pausing"  # a second click on Pause must not undo the first one
    more = {"pause", "sample"} if now == "training" else {"go_on"} if waits else set()
    return frozenset({"stop", "cancel", *more} - set(wishes))


def status(run: Run, progress: Progress, now: Situation) -> str:
    """Where the run stands, in Markdown: a heading and a line."""
    name, step = literal(run.name), f"{progress.step} of {progress.steps} steps"
    match now:
        case "starting":
            done, total = progress.fetched
            so_far = f"Downloading the base model: {done / 2**30:.1f} of {total / 2**30:.1f} GiB."
            doing = so_far if done < total else "Loading the base model."
            return f"### Starting {name}\n{doing}"
        case "encoding":
            done, total = progress.encoded
            return f"### Preparing {name}\n{done} of {total} pictures are encoded."
        case "training":
            return f"### Training {name}\n{_pace(progress)}"
        case "pausing":
            return f"### Training {name}\nIt pauses after the step it is at."
        case "paused":
            then = "*Go on* takes the next one; the model stays loaded until then."
            return f"### {name} is paused\n{step} are done. {literal(progress.message) or then}"
        case "cancelling":
            return f"### Cancelling {name}\nIt ends after the step it is at."
        case "stopping":
            return f"### Stopping {name}\nIt stops after the step it is at, and keeps what it has learnt."
        case "stopped" if not progress.lora:
            return f"### {name} is cancelled\nAfter {step}; no LoRA is written. {_resumed_from(run)}"
        case "stopped":
            return f"### {name} is stopped\nAfter {step}; what it has learnt so far is kept. {_made(run, progress)}"
        case "finished":
            return f"### {name} is finished\n{progress.step} steps. {_made(run, progress)}"
        case "failed":
            return f"### {name} failed\n{literal(progress.message)}"
        case "lost":
            log = literal(str(run.folder / "log.txt"))
            return (
                f"### {name} was interrupted\nIts process ended without a word, after {step}. "
                f"{_resumed_from(run)} What the process printed is in {log}."
            )


def doubt(run: Run, progress: Progress) -> str:
    """What is lost if the run is cancelled now, as a question in Markdown."""
    kept, step = kept_step(run), progress.step
    if not step:
        lost = "No step is taken yet."
    elif not kept:
        lost = f"There is no checkpoint yet: what it has learnt in {step} steps is lost."
    elif kept < step:
        lost = f"*Resume* would go on from the checkpoint at step {kept}: {step - kept} of the {step} steps are lost."
    else:
        lost = f"*Resume* would go on from the checkpoint at step {kept}: no step is lost."
    return f"**Cancel {literal(run.name)}?** No LoRA is written. {lost}"


def kept_step(run: Run) -> int:
    """The step of the newest checkpoint, whose files are not read; 0 if there is none."""
    return max((int(path.name) for path in run.checkpoints.glob("[0-9]*") if path.name.isdigit()), default=0)


def _resumed_from(run: Run) -> str:
    kept = kept_step(run)
    return f"*Resume* goes on from the checkpoint at step {kept}." if kept else "There is no checkpoint: *Resume* begins anew."


def outlook(result: Mapping[str, Any]) -> str:
    """What `impasto plan` says: the verdict, then the rest, its table as a list."""
    rest = [line for line in told_outlook(dict(result)) if line != result["sentence"]]
    shown = [f"- {literal(line)}" if line.startswith("  ") else f"\n{literal(line)}\n" for line in rest]
    return "\n".join([f"**{literal(result['sentence'])}**", *shown])


def _pace(progress: Progress) -> str:
    last = progress.last
    if last is None:
        return f"{progress.steps} steps to go. The first samples are being drawn."
    if progress.step == progress.steps:
        return f"All {progress.steps} steps are done. The last samples are being drawn."
    speed = f"{last.speed:.1f} steps per second" if last.speed >= 1 else f"{1 / max(last.speed, 1e-9):.1f} seconds per step"
    memory = f" · {last.memory / 2**30:.1f} GiB" if last.memory else ""
    return f"Step {progress.step} of {progress.steps} · {speed} · {duration(last.eta)} left{memory}"


def _made(run: Run, progress: Progress) -> str:
    note = f" {STARTER_NOTE}" if run.base == "starter" else ""
    return f"The LoRA is {literal(str(run.folder / progress.lora))} and can be mixed in *Preview*.{note}"


def duration(seconds: float) -> str:
    """A rough length of time."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def warnings(progress: Progress) -> str:
    """The warnings as a Markdown list."""
    return "\n".join(f"- {literal(message)}" for message in dict.fromkeys(progress.warnings))


def bar(progress: Progress, now: Situation) -> str:
    """How much is done, as a bar."""
    done, total = {"starting": progress.fetched, "encoding": progress.encoded}.get(now, (0, 0))
    return plain_bar(done / max(1, total) if done < total or now == "encoding" else progress.share, now)


def plain_bar(share: float, look: str = "training") -> str:
    """A bar of which this share, 0 to 1, is full."""
    percent = round(100 * min(1.0, share))
    return (
        f'<div class="impasto-bar {look}" role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{percent}"><i style="width:{percent}%"></i></div>'
    )


def samples(run: Run, progress: Progress) -> list[tuple[Path, str]]:
    """The sample pictures that are there, prompt by prompt: what the base draws, then the latest ones, newest first."""
    prompts: dict[str, list[Sampled]] = {}
    for sample in progress.samples:
        prompts.setdefault(sample.prompt, []).append(sample)
    most = max(4, MOST_SAMPLES // max(1, len(prompts)))
    found = []
    for prompt, drawn in list(prompts.items())[:MOST_PROMPTS]:
        about = f"{_without(prompt, run.settings.trigger)}: {prompt}"
        found += [(run.folder / path, f"{when}{about}") for path, when in _row(drawn, most)]
    return [(path, caption) for path, caption in found if path.is_file()]


def _without(prompt: str, trigger: str) -> str:
    """A remark if the trigger word is not in a prompt of the samples: some are drawn without it, to be compared."""
    return "" if with_trigger(prompt, literal_prompt(trigger)) == prompt else ", without the trigger word"


def _row(drawn: Sequence[Sampled], most: int) -> list[tuple[str, str]]:
    """Of the pictures of one prompt what the base draws, which at step 0 the LoRA has not changed yet, and the newest."""
    base = drawn[-1].base or next((sample.path for sample in drawn if sample.step == 0), "")
    latest = {sample.path: f"step {sample.step}" for sample in reversed(drawn) if sample.path != base}
    return ([(base, "the base")] if base else []) + list(latest.items())[: most - bool(base)]
