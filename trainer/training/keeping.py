"""What a training leaves on the disk: checkpoints, and the LoRA with its proof and its cards. Only the first process does."""

from __future__ import annotations

from collections.abc import Generator

from trainer.bases.fingerprint import origin_of
from trainer.bases.origin import Origin
from trainer.errors import StorageError
from trainer.lora import file, sidecar
from trainer.training import checkpoint, metadata
from trainer.training.events import Event, Saved, Warned
from trainer.training.plan import Plan
from trainer.training.progress import fold
from trainer.training.proof import Proof, prove
from trainer.training.run import Run
from trainer.training.state import Training


def save(training: Training) -> Saved:
    """A checkpoint of this moment, with the LoRA that it would be."""
    run = training.run
    moment = checkpoint.Moment(
        step=training.step,
        smoothed=training.smoothed,
        seconds=training.pace.seconds,
        scale=training.scale,
        guard=training.guard,
        base=training.fingerprint,
        processes=training.processes.count,
    )
    with training.learnt():
        lora = file.serialise(training.adapter.factors(), _metadata(training))
    average = training.average.matrices if training.average else None
    folder = checkpoint.write(run, moment, training.adapter, training.optimizer, lora=lora, average=average)
    return Saved(step=training.step, path=folder.relative_to(run.folder).as_posix())


def write_lora(training: Training) -> Generator[Event, None, Proof]:
    """The LoRA as it is now, in the form that every tool reads, and what other programs show it by; then read back."""
    run = training.run
    with training.learnt():
        factors = training.adapter.factors()
        file.write(run.lora, factors, _metadata(training))
        proof = prove(run.lora, factors, training.base.parts)
    for sentence in proof.doubts if training.step else ():
        yield Warned(message=sentence)
    drawn = [sample.path for sample in fold(run.events()).samples]
    card = metadata.card(*_told(training))
    try:
        sidecar.write(run.lora, card, run.folder / drawn[-1] if drawn else None)
    except StorageError as error:
        yield Warned(message=str(error))
    return proof


def _metadata(training: Training) -> dict[str, str]:
    """What the file tells about its training."""
    computed_in = str(training.base.unet.dtype).removeprefix("torch.")
    rung = metadata.describe_rung(training.base.precision, training.rung.recompute, computed_in)
    return metadata.describe(*_told(training), training.processes.count) | rung


def _told(training: Training) -> tuple[Run, Plan, Origin, int]:
    """What all that is told of a LoRA is made from."""
    return training.run, training.plan, origin_of(training.base.facts, training.cache), training.step
