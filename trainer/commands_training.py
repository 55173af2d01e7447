"""What each command around a training does: arguments in, a result ready for JSON out.

Knows no torch before a command needs it. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from trainer import presets
from trainer.bars import bar, begin, reach, say
from trainer.errors import UsageError
from trainer.home import Home
from trainer.settings_text import validated
from trainer.training.events import (
    Encoded,
    Event,
    Fetched,
    Finished,
    Lowered,
    Paused,
    Resumed,
    Started,
    Stepped,
    Validated,
    Warned,
)
from trainer.training.interrupts import heeded, unheard
from trainer.training.processes import Processes
from trainer.training.progress import Progress, fold
from trainer.training.queue import Queue, Turn
from trainer.training.run import Run, Wish

if TYPE_CHECKING:
    from trainer.bases.source import Facts
    from trainer.data.dataset import Dataset
    from trainer.settings import Settings

Asked = argparse.Namespace
Result = dict[str, Any]


def train(asked: Asked, home: Home) -> Result:
    """`impasto train`."""
    return trained(_shared(lambda: _created(asked, home)), home)


def plan(asked: Asked, home: Home) -> Result:
    """`impasto plan`: what `impasto train` would take, before it starts."""
    from trainer.training.outlook import outlook

    return outlook(*_asked_training(asked, home), asked.memory, home)


def _asked_training(asked: Asked, home: Home) -> tuple[Dataset, Facts, Settings]:
    """The dataset, the base and the settings that a command line names."""
    from trainer.bases.source import facts_of
    from trainer.data.lookup import opened

    preset, given = presets.load(asked.preset), dict(assignments(asked.set))
    file = presets.own(asked.settings) if asked.settings else {}
    validated({**file, **given})  # a mistake in them is told of before pictures and base are looked at
    dataset = opened(asked.dataset, home).for_training()
    facts = facts_of(asked.base)
    trigger = {"trigger": dataset.trigger} if dataset.trigger else {}
    return dataset, facts, preset.settings(facts.family, {**file, **trigger, **given})


def assignments(given: Sequence[str]) -> Iterator[tuple[str, str]]:
    """`name=value` texts as pairs."""
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"--set takes name=value, not {text!r}.")
        yield name.strip(), value.strip()


def _created(asked: Asked, home: Home) -> Run:
    """The new run folder that a command line asks for."""
    from trainer.bases.source import kept_as

    dataset, _, settings = _asked_training(asked, home)
    return Run.create(asked.out, dataset.folder, kept_as(asked.base), asked.preset, settings)


def resume(asked: Asked, home: Home) -> Result:
    """`impasto resume`: a run that waits goes on in its own process, any other one in this."""
    run = Run.open(asked.run)
    if asked.steps is not None:
        run = run.with_steps(asked.steps)
    elif run.alive() and run.wishes("pause"):
        run.granted("pause")
        return {**_ended(run, fold(run.events())), "state": "training"}
    asked_for, taken = run.settings.steps, _kept_step(run)
    if 0 < asked_for < taken:
        say(f"{taken} steps are already taken, more than the {asked_for} asked for; the LoRA is written from step {taken}.")
    return trained(run, home)


def _kept_step(run: Run) -> int:
    """The step that a run would go on from: its newest checkpoint's, or 0."""
    from trainer.training import checkpoint

    kept = checkpoint.newest(run.checkpoints)
    return kept.step if kept else 0


def stop(asked: Asked, home: Home) -> Result:
    """`impasto stop`."""
    run = Run.open(asked.run)
    if not run.alive():
        return {"asked": False, "message": f"{run.folder} is not being trained: there is nothing to stop."}
    return _asked_for(run, "cancel" if asked.cancel else "stop")


def wish(asked: Asked, home: Home) -> Result:
    """`impasto pause`, `impasto sample`, `impasto save`: a wish of the command's name."""
    return _asked_for(Run.open(asked.run), asked.name)


def _asked_for(run: Run, wish: Wish) -> Result:
    """Leave word for a run, and tell what it will do. Raises `RunError` if nobody trains it."""
    run.ask(wish)
    will = {
        "stop": "stops after the step it is at, and keeps what it has learnt",
        "cancel": "stops after the step it is at, without a LoRA; "
        f"`impasto resume {run.folder}` goes on from its last checkpoint",
        "pause": f"waits after the step it is at, until `impasto resume {run.folder}`",
        "sample": "draws its sample pictures after the step it is at",
        "save": "writes a checkpoint after the step it is at",
    }[wish]
    return {"asked": True, "message": f"{run.folder} {will}."}


def queue(asked: Asked, home: Home) -> Result:
    """`impasto queue`: the runs that wait, after the change that was asked for."""
    waiting = Queue(home)
    if asked.change == "add":
        waiting.add(_created(asked, home).folder)
    elif asked.change == "again":
        waiting.add(Run.open(asked.run).folder)
    elif asked.change == "remove":
        waiting.remove(asked.run)
    elif asked.change in ("up", "down"):
        waiting.move(asked.run, -1 if asked.change == "up" else 1)
    return {"runs": [asdict(entry) for entry in waiting.entries()]}


def work_queue(asked: Asked, home: Home) -> Result:
    """`impasto queue run`: how each run ended that had its turn."""
    ended: list[Turn] = []
    with contextlib.closing(Queue(home).work()) as turns, contextlib.ExitStack() as bars:
        told, shown = "", None
        for turn in turns:
            if turn.sentence != told:
                bars.close()
                told, shown = turn.sentence, None
                print(told, file=sys.stderr)
            if turn.over:
                ended.append(turn)
            elif turn.progress.steps:
                if shown is None:
                    shown = bars.enter_context(bar("training", turn.progress.steps))
                    begin(shown, turn.progress.step)
                reach(shown, turn.progress.step)
    return {"ended": [{"run": str(turn.folder), "state": turn.state, "message": turn.sentence} for turn in ended]}


def _shared(make: Callable[[], Run]) -> Run:
    """The run that the first process makes, in all of them."""
    processes = Processes.found()
    run = processes.agree(make() if processes.first else None)
    assert run is not None
    return run


def trained(run: Run, home: Home) -> Result:
    """Train `run` to its end, told of on stderr; what to tell of it then. Only the first of several processes comes back."""
    from trainer.training.loop import train

    processes = Processes.found()
    if not processes.first:
        with unheard():
            for _ in train(run, home):
                pass
        processes.leave()
        raise SystemExit(0)
    progress = fold(run.events())
    with _Teller() as teller, heeded(run, lambda: teller.training is not None, say):
        for event in run.recorded(train(run, home)):
            progress = fold([event], progress)
            teller.hear(event)
    processes.leave()
    return _ended(run, progress)


class _Teller(contextlib.ExitStack):
    """Tells of a training's events on stderr."""

    training: Any = None
    """The bar of the steps, once they have begun."""
    _download: Any = None

    def hear(self, event: Event) -> None:
        """Tell of one event."""
        match event:
            case Warned(message=message) | Lowered(message=message):
                say(message)
            case Validated(message=message) if message:
                say(message)
            case Paused(message=message):
                say(message or "It waits: `impasto resume RUN` goes on with it.")
            case Fetched(done=done, total=total):
                self._download = self._download or self.enter_context(bar("downloading", total, unit="B", unit_scale=True))
                reach(self._download, done)
            case Encoded(done=done, total=total, what=what) if done == total:
                say(f"Encoded {total} {what}.")
            case Started(steps=steps, device=device):
                self.close()
                say(f"Training {steps} steps on {device}.")
                self.training = self.enter_context(bar("training", steps))
            case Resumed(step=step) if self.training is not None:
                begin(self.training, step)
            case Stepped(step=step, smoothed=smoothed) if self.training is not None:
                self.training.set_postfix_str(f"loss {smoothed:.4f}", refresh=False)
                reach(self.training, step)


def _ended(run: Run, progress: Progress) -> Result:
    """What to tell of a training that is over, or goes on elsewhere."""
    return {
        "state": progress.state,
        "lora": str(run.folder / progress.lora) if progress.lora else "",
        "run": str(run.folder),
        "steps": progress.step,
        "seconds": round(progress.seconds, 3),
        "loss": progress.last.smoothed if progress.last else None,
        "change": progress.last.change if progress.last else {},
        "base": run.base,
        **({"checkpoint": _kept_step(run)} if progress.state == "stopped" and not progress.lora else {}),
        **_proven(progress.finished),
    }


def _proven(finished: Finished | None) -> Result:
    """What the finished LoRA was found to hold when it was read back; nothing where that was not done."""
    if not finished or not finished.layers:
        return {}
    return {"layers": finished.layers, "size": finished.size, "share": finished.share}
