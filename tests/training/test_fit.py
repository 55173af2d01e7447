"""The ladder, and the rung that is taken, on true SDXL and on the starter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import save_dataset
from trainer.bases.source import facts_of
from trainer.data.dataset import Dataset
from trainer.errors import RunError
from trainer.home import Home
from trainer.settings import Precision, Settings
from trainer.training.fit import Fit, Job, Option, Rung, below, choose, draw_fit, fit, lower, size
from trainer.training.machine import CPU_BANDWIDTH, CPU_LAUNCH, Machine, example
from trainer.training.plan import Plan

GIB = 2**30


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Squares and one wide picture."""
    folder = save_dataset(tmp_path_factory.mktemp("fit") / "pictures", ((1024, 1024), (1024, 1024), (1536, 1024)))
    return Dataset.open(folder).for_training()


@pytest.fixture
def job(pictures: Dataset, counted: Home) -> Any:
    """A training on SDXL, or on another base, with these settings."""

    def make(base: str = "some/sdxl", **settings: Any) -> Job:
        chosen = Settings(**settings)
        return Job.of(chosen, Plan.of(pictures, chosen), facts_of(base), counted.cache)

    return make


def card(gib: float, native: Precision = "bf16") -> Machine:
    """The RTX 3060, with so much free."""
    return replace(example(12 * GIB), free=int(gib * GIB), native=native)


def rung(found: Fit) -> tuple[Precision, str]:
    return found.chosen.rung.precision, found.chosen.rung.recompute


TAKEN = {
    24: ("bf16", "none"),
    12: ("bf16", "selective"),
    9: ("bf16", "selective"),
    8: ("int8", "selective"),
    5: ("nf4", "selective"),
}


@pytest.mark.parametrize("gib", TAKEN)
def test_the_least_slow_rung_that_fits_is_taken(job: Any, gib: int) -> None:
    found = fit(job(), card(gib))
    assert found.fits
    assert rung(found) == TAKEN[gib]
    fitting = [option for option in found.ladder if option.needs.total <= gib * GIB]
    alike = [option.seconds for option in fitting if option.rung.precision == found.chosen.rung.precision]
    assert found.chosen.seconds == min(alike)


def test_the_ladder_goes_from_exact_and_large_to_rounded_and_small(job: Any) -> None:
    ladder = fit(job(), card(12)).ladder
    kept = [option.rung.precision for option in ladder]
    assert kept == sorted(kept, key=("bf16", "int8", "nf4").index)
    for precision in ("bf16", "int8", "nf4"):
        seconds = [option.seconds for option in ladder if option.rung.precision == precision]
        assert len(seconds) > 1
        assert seconds == sorted(seconds)
    totals = [option.needs.total for option in ladder]
    assert totals == sorted(set(totals), reverse=True)
    assert ladder[0].rung == Rung("bf16", "none")
    assert ladder[-1].rung == Rung("nf4", "full")


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_a_rounded_base_without_recompute_must_be_asked_for(job: Any, precision: Precision) -> None:
    """It may be faster than 16 bits with recompute, but what it gains in time it loses in exactness."""
    rounded = Rung(precision, "none")
    assert rounded not in [option.rung for option in fit(job(), card(12)).ladder]
    assert rounded in [option.rung for option in fit(job(precision=precision), card(12)).ladder]


def test_older_cards_take_fp16(job: Any) -> None:
    assert rung(fit(job(), card(24, native="fp16"))) == ("fp16", "none")


def test_settings_leave_less_to_choose(job: Any) -> None:
    assert rung(fit(job(precision="nf4"), card(24))) == ("nf4", "none")
    assert rung(fit(job(recompute="full"), card(24))) == ("bf16", "full")
    assert rung(fit(job(precision="bf16"), card(9))) == ("bf16", "selective")
    assert not fit(job(precision="bf16"), card(8)).fits
    assert rung(fit(job(precision="fp32", recompute="full"), card(24))) == ("fp32", "full")


def test_sentences(job: Any) -> None:
    most = fit(job(), card(24)).chosen.needs.total
    assert fit(job(), card(24)).sentence == f"Fits: {size(most)} of 24.0 GiB free, in bf16 without recompute, the fastest way."
    recomputed = fit(job(), card(12)).chosen.needs.total
    assert fit(job(), card(12)).sentence == (
        f"Fits: {size(recomputed)} of 12.0 GiB free, in bf16 with selective recompute; "
        f"in bf16 without recompute it would need {size(most)}."
    )
    assert 13 * GIB < most < 14 * GIB


def test_neighbours_on_the_ladder(job: Any) -> None:
    found = fit(job(), card(12))
    assert found.above
    assert found.below
    assert found.above.rung == Rung("bf16", "none")
    assert found.above.needs.total > 12 * GIB
    assert found.below.rung == Rung("bf16", "full")
    assert fit(job(), card(24)).above is None
    assert fit(job(recompute="full", precision="nf4"), card(24)).below is None


SMALLEST_RUNG = {"precision": "nf4", "recompute": "full"}


@pytest.mark.parametrize(
    ("settings", "gib", "advice"),
    [
        ({"batch": 4}, 4.5, "With batch 1 it would need 4.3 GiB."),
        (SMALLEST_RUNG, 4.3, "With te1_lr and te2_lr at 0"),
        ({**SMALLEST_RUNG, "te1_lr": 0.0, "te2_lr": 0.0}, 2, "Close other programs that use the card"),
        ({**SMALLEST_RUNG, "te1_lr": 0.0, "te2_lr": 0.0, "batch": 2, "resolution": 1536}, 3.9, "With batch 1 and resolution 1"),
    ],
)
def test_what_to_do_where_nothing_fits(job: Any, settings: dict[str, Any], gib: float, advice: str) -> None:
    found = fit(job(**settings), card(gib))
    assert not found.fits
    assert rung(found) == ("nf4", "full")
    verdict = "Does" if found.chosen.needs.peak > gib * GIB else "May"
    assert found.sentence.startswith(f"{verdict} not fit: on an NF4 base with full recompute it needs ")
    assert advice in found.sentence


def test_settings_that_leave_too_little_are_named_first(job: Any) -> None:
    sentence = fit(job(precision="bf16"), card(8)).sentence
    assert sentence.endswith("With precision and recompute at auto it would fit, on an 8-bit base with selective recompute.")


def test_the_largest_bucket_decides_over_memory_and_the_mean_over_time(job: Any) -> None:
    made = job()
    assert made.mean < made.largest
    square = replace(made, largest=1024**2, mean=1024.0**2)
    one, other = (each.option(Rung("bf16", "none"), card(24)) for each in (made, square))
    assert one.needs.activations / other.needs.activations == pytest.approx(made.largest / 1024**2)


def test_a_batch_needs_as_much_more(job: Any) -> None:
    one, four = (job(batch=batch).option(Rung("bf16", "none"), card(24)).needs for batch in (1, 4))
    assert four.activations == pytest.approx(4 * one.activations)
    assert four.weights == one.weights


def test_a_training_that_cannot_fit_does_not_start(job: Any) -> None:
    with pytest.raises(RunError, match="Does not fit"):
        choose(job(), card(3))
    assert not choose(job(precision="bf16", recompute="none"), card(3)).fits  # as the person says


def test_a_training_that_may_just_fit_starts_with_a_warning(job: Any) -> None:
    needs = fit(job(), card(1)).chosen.needs
    found = choose(job(), card((needs.peak + 1000) / GIB))
    assert not found.fits
    assert found.sentence.startswith("May not fit: ")


def test_the_starter_on_a_cpu_is_trained_as_it_is(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = Machine("CPU", 2 * GIB, "fp32", 5e10, CPU_BANDWIDTH, CPU_LAUNCH)
    made = job("starter", resolution=128, batch=4, rank=8)
    asked: list[Rung] = []
    option = Job.option

    def seen(job: Job, rung: Rung, machine: Machine) -> Option:
        asked.append(rung)
        return option(job, rung, machine)

    monkeypatch.setattr(Job, "option", seen)
    found = choose(made, cpu)
    assert rung(found) == ("fp32", "none")
    assert "the fastest way" in found.sentence
    assert asked == [Rung("fp32", "none")]  # no other rung is counted before a training starts


@pytest.mark.parametrize(
    ("gib", "tiled", "copies_away", "visiting"),
    [(17, False, False, False), (15, True, False, False), (8.5, True, True, False), (7.3, True, True, True)],
)
def test_drawing_with_a_lora(job: Any, gib: float, tiled: bool, copies_away: bool, visiting: bool) -> None:
    way, fits = draw_fit(job().counts(card(24)), int(gib * GIB), "bf16")
    assert fits
    assert (way.tiled, way.copies_away, way.visiting) == (tiled, copies_away, visiting)


def test_drawing_that_does_not_fit(job: Any) -> None:
    way, fits = draw_fit(job().counts(card(24)), 4 * GIB, "bf16")
    assert not fits
    assert way.visiting


@pytest.mark.parametrize(("bytes_", "text"), [(0, "0 MiB"), (300 * 2**20, "300 MiB"), (1.5 * GIB, "1.5 GiB")])
def test_sizes_for_a_person(bytes_: float, text: str) -> None:
    assert size(bytes_) == text


UNET_ONLY = {"te1_lr": 0.0, "te2_lr": 0.0}


def test_text_encoders_that_are_not_trained_leave_the_card(job: Any) -> None:
    """1.5 GiB in 16 bits, which come back only for the prompts of samples."""
    text = 2 * (123_060_480 + 694_659_840)
    away, there = (job(**UNET_ONLY, cache_text=kept).option(Rung("bf16", "none"), card(24)) for kept in (True, False))
    assert there.needs.weights - away.needs.weights == text
    assert there.needs.peak - away.needs.peak == text
    assert away.needs.start > away.needs.weights + away.needs.vae + text
    assert away.needs.start < away.needs.peak
    assert away.seconds < there.seconds
    assert rung(fit(job(**UNET_ONLY), card(7.8))) == ("bf16", "selective")
    assert rung(fit(job(**UNET_ONLY, cache_text=False), card(7.8))) == ("int8", "selective")
    trained = job(te2_lr=0.0).option(Rung("bf16", "none"), card(24)).needs
    assert trained.weights == there.needs.weights


def test_on_a_cpu_nothing_can_leave(job: Any) -> None:
    cpu = Machine("CPU", 64 * GIB, "fp32", 5e10, CPU_BANDWIDTH, CPU_LAUNCH)
    away, there = (job("starter", **UNET_ONLY, cache_text=kept).option(Rung("fp32", "none"), cpu) for kept in (True, False))
    assert away.needs.weights == there.needs.weights
    assert away.seconds < there.seconds


def test_accumulation_takes_time_and_no_memory(job: Any) -> None:
    one, four = (job(accumulation=number).option(Rung("bf16", "none"), card(24)) for number in (1, 4))
    assert four.needs == one.needs
    assert four.seconds == pytest.approx(4 * one.seconds)


def test_what_the_optimizer_and_an_average_take(job: Any) -> None:
    """29,548,544 trained numbers: AdamW's 8 bytes and the gradient's 4; Lion's 4; an average's 4."""
    numbers = 29_548_544
    plain, lion, averaged = (
        job(**each).option(Rung("bf16", "none"), card(24)).needs for each in ({}, {"optimizer": "lion"}, {"ema": 0.99})
    )
    assert (plain.optimizer, lion.optimizer, averaged.optimizer) == (12 * numbers, 8 * numbers, 12 * numbers)
    assert (plain.average, averaged.average) == (0, 4 * numbers)
    assert averaged.peak - plain.peak == 4 * numbers


def test_the_shape_of_the_lora_is_the_settings(job: Any, counted: Home) -> None:
    asked: dict[str, dict[str, Any]] = {
        "plain": {},
        "scaled": {"alpha": 4.0, "rslora": True},
        "one block": {"style_blocks_only": True},
        "no middle": {"block_ranks": ("mid_block=0",)},
    }
    sizes = {name: sum(job(**settings).counts(card(24)).lora().values()) for name, settings in asked.items()}
    assert sizes["plain"] == sizes["scaled"] == 29_548_544
    assert sizes["one block"] < sizes["no middle"] < sizes["plain"]


def test_where_memory_runs_out_more_is_computed_twice_and_then_the_base_is_rounded(job: Any) -> None:
    taken, found = [], lower(fit(job(), card(24)))
    while found:
        taken.append(rung(found))
        found = lower(found)
    assert taken == [
        ("bf16", "selective"), ("bf16", "full"),
        ("int8", "selective"), ("int8", "full"), ("nf4", "selective"), ("nf4", "full"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "taken", "then"),
    [
        ({"precision": "bf16"}, Rung("bf16", "full"), None),
        ({"precision": "bf16"}, Rung("bf16", "none"), Rung("bf16", "selective")),
        ({"recompute": "none"}, Rung("bf16", "none"), Rung("int8", "none")),
        ({"recompute": "none", "precision": "int8"}, Rung("int8", "none"), None),
        ({}, Rung("int8", "none"), Rung("int8", "selective")),
        ({"precision": "bf16"}, Rung("int8", "full"), None),  # of a run whose settings were others
    ],
)
def test_what_the_settings_say_is_kept_to(job: Any, settings: dict[str, Any], taken: Rung, then: Rung | None) -> None:
    found = below(taken, job(**settings), card(12))
    assert (found.chosen.rung if found else None) == then


def test_recompute_is_taken_even_where_samples_are_the_largest(job: Any) -> None:
    """What ran out was perhaps a step, whatever was predicted; and it changes no numbers."""
    made = replace(job(resolution=512), largest=256 * 256, mean=256.0 * 256)
    none, selective = (made.option(Rung("bf16", how), card(24)).needs for how in ("none", "selective"))
    assert none.peak == selective.peak
    found = below(Rung("bf16", "none"), made, card(24))
    assert found
    assert rung(found) == ("bf16", "selective")


def test_the_way_below_says_whether_it_fits(job: Any) -> None:
    lower_one = lower(fit(job(), card(24)))
    assert lower_one
    assert lower_one.fits
    tight = below(Rung("bf16", "none"), job(), card(8))
    assert tight
    assert not tight.fits


@pytest.mark.parametrize(("ram", "told"), [(None, False), (4, True), (6.5, True), (7, False)])
def test_too_little_of_the_computers_own_memory_is_told_of(job: Any, ram: float | None, told: bool) -> None:
    """A base in 16 bits takes 6.6 GiB on its way to a card."""
    machine = replace(card(8), ram=None if ram is None else int(ram * GIB))
    remark = fit(job(), machine).remark
    assert (remark is not None) == told
    if remark:
        assert remark.startswith("Loading the base takes up to 6.6 GiB of the computer's own memory for a while, and ")


def test_a_base_that_is_packed_on_a_cpu_is_there_in_full_first(job: Any) -> None:
    cpu = Machine("CPU", 64 * GIB, "fp32", 5e10, CPU_BANDWIDTH, CPU_LAUNCH)
    whole, packed = (job().option(Rung(kept, "full"), cpu).needs for kept in ("fp32", "int8"))
    assert packed.start == whole.weights + whole.vae
    assert packed.peak == packed.start  # 12.9 GiB
    assert whole.peak > whole.start


def test_attention_that_is_not_fused_needs_more(job: Any) -> None:
    mps = Machine("mps", 64 * GIB, "fp32", 5e12, 4e11, CPU_LAUNCH)
    settings = {"resolution": 512, **UNET_ONLY}
    fused, spelt = (job(**settings).option(Rung("fp32", "none"), replace(mps, fused=each)).needs for each in (True, False))
    assert spelt.activations > 1.2 * fused.activations
    assert spelt.weights == fused.weights


def test_the_cache_is_in_the_home(job: Any, counted: Home) -> None:
    fit(job(), card(24))
    assert list(Path(counted.cache / "counts").glob("*.json"))
