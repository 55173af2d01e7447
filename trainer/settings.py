"""Every setting of a training: its type, bounds, default and help text, once, in groups.

The command line (`--set`), the presets, the page's form with its help, and the run folder's `settings.toml` all read this
schema. The defaults are for SDXL; the starter base gets its own values from the presets' `[starter]` tables, never from here.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Family = Literal["starter", "sdxl", "pony", "illustrious", "noobai"]
"""Whose descendant a base is. All but the starter share SDXL's shapes; their LoRAs load on one another, and look different."""

Prediction = Literal["epsilon", "v_prediction"]
"""What a base's U-Net answers with."""

Precision = Literal["fp32", "bf16", "fp16", "int8", "nf4"]
"""How the frozen base is kept: int8 and nf4 hold the linear layers so, and the rest in bf16, or in fp16 where that is all."""

Packing = Literal["int8", "nf4"]
"""The precisions that round the base."""

Recompute = Literal["none", "selective", "full"]
"""What the backward pass computes a second time, so that it need not be kept: nothing, what is cheap, or every block."""

Loss = Literal["mse", "huber"]
"""How far an answer is from what was wanted: squared error, or one that outliers pull less."""

HuberSchedule = Literal["constant", "snr"]
"""How the width of the Huber loss depends on the time step."""

TimestepSampling = Literal["uniform", "logit_normal"]
"""How time steps are drawn."""

LrSchedule = Literal["cosine", "constant", "linear", "cosine_restarts"]
"""What the learning rate does after its warm-up."""

OptimizerName = Literal[
    "adamw", "adamw8bit", "adafactor", "lion", "prodigy", "schedulefree_adamw", "schedulefree_prodigy"
]  # fmt: skip
"""The optimizers. adamw8bit, prodigy and the schedule-free ones come with the extra `optimizers`."""

Targets = Literal["attention", "transformer", "everything"]
"""Which layers are adapted: attention; those with feed-forward and projections too; those with convolutions (LoCon) too."""


def _block_value(value: str) -> str:
    """`value`, if it is a block of the U-Net with a number. Raises `ValueError` that says what is wrong."""
    block, equals, number = value.partition("=")
    if not equals:
        raise ValueError(f"{value[:60]!r} has no number; write it as up_blocks.0=32.")
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", number):
        raise ValueError(f"{value[:60]!r} needs a number of at least 0; write it as up_blocks.0=32.")
    if not re.fullmatch(r"((down|up)_blocks(\.[012](\.[a-z0-9_.]+)?)?|mid_block(\.[a-z0-9_.]+)?)", block):
        blocks = "down_blocks.0 to .2, mid_block and up_blocks.0 to .2"
        raise ValueError(f"There is no block {block[:60] or 'without a name'}; there are {blocks}.")
    return value


BlockValue = Annotated[str, AfterValidator(_block_value)]
"""A number for the part of the U-Net whose module path begins so: `up_blocks.0.attentions.1=32`."""


STYLE_BLOCK = "up_blocks.0.attentions.1"
"""The block of SDXL's U-Net that carries most of a style (B-LoRA, arXiv 2403.14572)."""


def block_numbers(values: tuple[str, ...]) -> dict[str, float]:
    """Block values as a table: `("up_blocks.0=32",)` as `{"up_blocks.0": 32.0}`."""
    return {block: float(number) for block, _, number in (value.partition("=") for value in values)}


class Group(BaseModel):
    """Settings that belong together. Frozen; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Main(Group):
    """Most used."""

    trigger: str = Field("", max_length=80, description="Word that calls the style; put before every caption.")
    passes: float = Field(60, gt=0, le=10_000, description="How often each picture is seen, if steps is 0.")
    steps: int = Field(0, ge=0, le=1_000_000, description="Training steps; 0 works them out from passes.")
    batch: int = Field(1, ge=1, le=64, description="Pictures per step.")
    resolution: int = Field(1024, ge=64, le=2048, multiple_of=32, description="Side in pixels of a square training picture.")
    rank: int = Field(16, ge=1, le=512, description="Size of the LoRA: more holds more detail, in a larger file.")
    unet_lr: float = Field(1e-4, ge=0, le=1, description="Learning rate of the U-Net.")
    te1_lr: float = Field(1e-5, ge=0, le=1, description="Learning rate of text encoder 1 (CLIP-L); 0 leaves it alone.")
    te2_lr: float = Field(1e-5, ge=0, le=1, description="Learning rate of text encoder 2 (OpenCLIP bigG); 0 leaves it alone.")
    seed: int = Field(1, ge=0, lt=2**32, description="The same seed and pictures give the same LoRA.")

    @model_validator(mode="after")
    def _something_learns(self) -> Self:
        if not (self.unet_lr or self.te1_lr or self.te2_lr):
            raise ValueError("Nothing would be trained: all three learning rates are 0. Set unet_lr, te1_lr or te2_lr.")
        return self


class Lora(Group):
    """Kind of LoRA."""

    alpha: float = Field(16.0, gt=0, le=1024, description="The LoRA is scaled by alpha / rank.")
    rslora: bool = Field(False, description="Scale by alpha / sqrt(rank) instead, for large ranks.")
    targets: Targets = Field(
        "attention", description="Layers: attention; transformer adds feed-forward; everything adds convolutions (LoCon)."
    )
    conv_rank: int = Field(0, ge=0, le=512, description="Rank of 3 x 3 convolutions; 0: the same as rank.")
    style_blocks_only: bool = Field(
        False, description="Of the U-Net, train only up_blocks.0.attentions.1, which carries most of a style."
    )
    block_ranks: tuple[BlockValue, ...] = Field(
        (),
        description="Ranks of blocks, as in down_blocks=0|up_blocks.0=32; 0 leaves a block alone. Blocks: down_blocks.1, "
        "down_blocks.2, mid_block, up_blocks.0, up_blocks.1; .attentions.0 and so on within.",
    )
    block_rates: tuple[BlockValue, ...] = Field(
        (), description="Learning rates of blocks, as multiples of unet_lr: mid_block=0.5|up_blocks.0.attentions.1=2."
    )
    lora_plus: float = Field(
        1.0,
        ge=1,
        le=64,
        description="LoRA+: learning rate of each layer's second matrix, as a multiple of the first's; 1: off, 4 to 16 usual.",
    )

    @model_validator(mode="after")
    def _numbers_of_blocks(self) -> Self:
        for name, values, most in (("block_ranks", self.block_ranks, 512), ("block_rates", self.block_rates, 100)):
            numbers = block_numbers(values)
            if len(numbers) < len(values):
                raise ValueError(f"{name} must name each block once.")
            for block, number in numbers.items():
                if number > most or (name == "block_ranks" and number % 1):
                    kind = "a whole number" if name == "block_ranks" else "a number"
                    raise ValueError(f"{name} must give {block} {kind} from 0 to {most}, not {number:g}.")
        return self


class Learning(Group):
    """Optimizer and learning rate."""

    optimizer: OptimizerName = Field("adamw", description="What takes the steps; prodigy finds its own rate: set rates to 1.")
    lr_schedule: LrSchedule = Field(
        "cosine", description="The learning rate after warm-up; with the schedule-free optimizers always constant."
    )
    lr_cycles: int = Field(1, ge=1, le=100, description="How often cosine_restarts starts again from the full rate.")
    warmup: float = Field(0.05, ge=0, le=1, description="Share of the steps over which the learning rate rises.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="Pull of the matrices towards zero at each step.")
    max_grad_norm: float = Field(1.0, gt=0, description="Longer gradients are cut to this length.")
    accumulation: int = Field(
        1, ge=1, le=256, description="Batches per step, one after the other: a larger batch in the same memory."
    )
    ema: float = Field(
        0.0, ge=0, lt=1, description="An average over the last steps becomes the LoRA: 0.99 averages about 100; 0 is off."
    )
    unet_stop: float = Field(
        1.0,
        gt=0,
        le=1_000_000,
        description="When the U-Net stops learning. 0.5: after half of the steps; 200: after step 200; 1: never.",
    )
    te1_stop: float = Field(1.0, gt=0, le=1_000_000, description="When text encoder 1 stops learning, as unet_stop.")
    te2_stop: float = Field(1.0, gt=0, le=1_000_000, description="When text encoder 2 stops learning, as unet_stop.")


class Noise(Group):
    """Loss and noise."""

    loss: Loss = Field("mse", description="mse, or huber: pictures unlike the others count less.")
    huber_c: float = Field(0.1, gt=0, le=1, description="Errors above this count less in the Huber loss.")
    huber_schedule: HuberSchedule = Field("snr", description="constant, or snr: only noisy steps are judged with huber_c.")
    min_snr_gamma: float = Field(5.0, ge=0, le=100, description="Min-SNR: evens out the levels of noise; 5 is usual, 0 is off.")
    debiased: bool = Field(False, description="Weigh the levels of noise by 1 / sqrt(SNR), instead of min-SNR.")
    noise_offset: float = Field(
        0.0, ge=0, le=1, description="Noise over the whole picture, so that its overall brightness and colour are learnt."
    )
    multires_noise: int = Field(
        0, ge=0, le=10, description="Levels of coarser noise, for darker and brighter pictures; 0 is off."
    )
    multires_discount: float = Field(0.3, gt=0, lt=1, description="Strength of each coarser level, as a share of the last.")
    ip_noise_gamma: float = Field(
        0.0, ge=0, le=1, description="Extra noise in what the U-Net sees, against learning by heart; 0.1 is usual, 0 is off."
    )
    timestep_sampling: TimestepSampling = Field("uniform", description="uniform, or logit_normal: middle steps more often.")
    timestep_mean: float = Field(0.0, ge=-5, le=5, description="Centre of logit_normal: above 0 means more noise.")
    timestep_std: float = Field(1.0, gt=0, le=5, description="Width of logit_normal.")
    timestep_min: int = Field(0, ge=0, le=999, description="Lowest time step trained: 0 is almost no noise.")
    timestep_max: int = Field(999, ge=0, le=999, description="Highest time step trained: 999 is almost only noise.")

    @model_validator(mode="after")
    def _range_of_times(self) -> Self:
        if self.timestep_max < self.timestep_min:
            raise ValueError(f"timestep_max, {self.timestep_max}, must not be below timestep_min, {self.timestep_min}.")
        return self


class Pictures(Group):
    """Pictures."""

    resolutions: tuple[Annotated[int, Field(ge=64, le=2048, multiple_of=32)], ...] = Field(
        (), description="Further resolutions: every picture is trained at each, in turn."
    )
    max_upscale: float = Field(
        2.0, ge=1, le=64, description="Most that a small picture is enlarged; beyond that it is trained at a lower resolution."
    )
    flip: bool = Field(False, description="Train every picture mirrored too, left for right.")
    crops: int = Field(
        1,
        ge=1,
        le=16,
        description="How many different crops are trained of a picture whose shape does not fit exactly; 1: the middle, "
        "or around its focus.",
    )
    masked_loss: bool = Field(
        False,
        description="Learn only what a mask shows in white (painted, or NAME-masklabel.png beside NAME), or what is opaque.",
    )
    mask_floor: float = Field(0.0, ge=0, le=1, description="How much what a mask hides still counts; 0: not at all.")
    prior_dataset: str = Field(
        "", description="Folder of ordinary pictures that keep the base from forgetting (regularisation)."
    )
    prior_weight: float = Field(
        1.0, ge=0, le=10, description="How much the pictures of prior_dataset count, beside the others' 1."
    )


class Captions(Group):
    """Captions."""

    caption_dropout: float = Field(0.05, ge=0, le=1, description="Share of the pictures that are shown without their caption.")
    shuffle_tags: bool = Field(False, description="Shuffle the tags of a caption (between commas) each time.")
    keep_tags: int = Field(0, ge=0, le=100, description="How many first tags, after the trigger word, stay in place.")
    tag_dropout: float = Field(
        0.0, ge=0, le=1, description="Share of a caption's tags that is left out, different ones each time."
    )
    wildcards: bool = Field(False, description="Choose one of {red|blue} in a caption each time.")
    cache_text: bool = Field(True, description="Encode captions only once, where no text encoder is trained.")
    caption_variants: int = Field(
        16, ge=1, le=256, description="How many variants of a caption are encoded, where it varies and cache_text applies."
    )


class Watching(Group):
    """Checkpoints, samples and measuring."""

    checkpoint_every: int = Field(100, ge=1, description="Steps between checkpoints.")
    keep_checkpoints: int = Field(3, ge=1, le=1000, description="How many of the last checkpoints are kept.")
    sample_every: int = Field(100, ge=0, description="Steps between sample pictures; 0 draws none.")
    sample_prompts: tuple[str, ...] = Field((), description="Prompts of the samples; empty: captions of the dataset.")
    sample_untriggered: bool = Field(False, description="Draw each sample without the trigger word too.")
    sample_weight: float = Field(1.0, ge=0, le=2, description="Weight of the LoRA in the samples.")
    sample_steps: int = Field(25, ge=1, le=200, description="Sampler steps of a sample picture.")
    sample_cfg: float = Field(6.0, ge=1, le=30, description="CFG scale of a sample picture.")
    validation_share: float = Field(
        0.0, ge=0, le=0.5, description="Share of the pictures that is held out to measure progress; needs at least 4 pictures."
    )
    validate_every: int = Field(50, ge=1, description="Steps between measurements on the held-out pictures.")
    tensorboard: bool = Field(False, description="Write losses and samples for TensorBoard too.")


class Loading(Group):
    """Base and memory."""

    precision: Literal["auto", Precision] = Field(
        "auto", description="How the base is held in memory; auto: the fastest that fits."
    )
    recompute: Literal["auto", Recompute] = Field(
        "auto", description="Gradient checkpointing: saves memory, up to a third slower; auto: only if needed."
    )
    family: Literal["auto", Family] = Field("auto", description="What the base descends from; auto: as its file tells.")
    prediction: Literal["auto", Prediction] = Field(
        "auto", description="What the base predicts: epsilon (most), or v_prediction; auto: as its file tells."
    )


GROUPS: tuple[type[Group], ...] = (Main, Lora, Learning, Noise, Pictures, Captions, Watching, Loading)
"""The groups in the order in which they are shown; a group's docstring is its title."""


class Settings(
    Loading, Watching, Captions, Pictures, Noise, Learning, Lora, Main
):  # pydantic puts the last base's fields first
    """What a training does, apart from its pictures and its base."""
