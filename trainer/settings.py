"""Every setting of a training: its type, bounds, default and help text, once, in groups.

The command line (`--set`), the presets, the page's form with its help, and the run folder's `settings.toml` all read this
schema. The defaults are for SDXL; the starter base gets its own values from the presets' `[starter]` tables, never from here.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

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


BlockValue = Annotated[
    str, Field(pattern=r"^((down|up)_blocks(\.[012](\.[a-z0-9_.]+)?)?|mid_block(\.[a-z0-9_.]+)?)=[0-9]+(\.[0-9]+)?$")
]  # fmt: skip
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
    """What most people change."""

    trigger: str = Field("", max_length=80, description="Word that calls the style; put before every caption.")
    passes: float = Field(60, gt=0, le=10_000, description="How often each picture is seen, where steps is 0.")
    steps: int = Field(0, ge=0, le=1_000_000, description="Training steps; 0 derives them from the passes per picture.")
    batch: int = Field(1, ge=1, le=64, description="Pictures per step.")
    resolution: int = Field(1024, ge=64, le=2048, multiple_of=32, description="Side in pixels of a square training picture.")
    rank: int = Field(16, ge=1, le=512, description="Size of the LoRA: more holds more detail and makes a larger file.")
    unet_lr: float = Field(1e-4, ge=0, le=1, description="Learning rate of the U-Net.")
    te1_lr: float = Field(1e-5, ge=0, le=1, description="Learning rate of text encoder 1 (CLIP-L); 0 leaves it alone.")
    te2_lr: float = Field(1e-5, ge=0, le=1, description="Learning rate of text encoder 2 (OpenCLIP bigG); 0 leaves it alone.")
    seed: int = Field(1, ge=0, lt=2**32, description="The same seed and pictures give the same LoRA.")


class Lora(Group):
    """What the LoRA is made of."""

    alpha: float = Field(16.0, gt=0, le=1024, description="The LoRA is scaled by alpha / rank.")
    rslora: bool = Field(False, description="Whether it is scaled by alpha / sqrt(rank) instead, for large ranks.")
    targets: Targets = Field(
        "attention", description="attention; transformer: feed-forward layers too; everything: convolutions too (LoCon)."
    )
    conv_rank: int = Field(0, ge=0, le=512, description="Rank of 3 x 3 convolutions; 0: as the others.")
    style_blocks_only: bool = Field(
        False, description="Whether only up_blocks.0.attentions.1 of the U-Net is adapted, which carries most of a style."
    )
    block_ranks: tuple[BlockValue, ...] = Field(
        (), description="Ranks for blocks of the U-Net, as down_blocks=0|up_blocks.0=32; 0 leaves a block alone."
    )
    block_rates: tuple[BlockValue, ...] = Field(
        (), description="Factors of the U-Net's learning rate for blocks, as mid_block=0.5|up_blocks.0.attentions.1=2."
    )
    lora_plus: float = Field(1.0, ge=1, le=64, description="LoRA+: how many times faster the outer matrices learn.")

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
    """How steps are taken."""

    optimizer: OptimizerName = Field("adamw", description="What takes the steps; prodigy finds its own rates from rates of 1.")
    lr_schedule: LrSchedule = Field(
        "cosine", description="The learning rate after warm-up; the schedule-free optimizers always keep it constant."
    )
    lr_cycles: int = Field(1, ge=1, le=100, description="How often cosine_restarts starts again from the full rate.")
    warmup: float = Field(0.05, ge=0, le=1, description="Share of the steps over which the learning rate rises.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW's weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Longer gradients are cut to this length.")
    accumulation: int = Field(
        1, ge=1, le=256, description="Batches per step, one after the other: a large batch in little memory."
    )
    ema: float = Field(
        0.0, ge=0, lt=1, description="Decay of a running average, which becomes the LoRA; 0 takes the last step."
    )
    unet_stop: float = Field(1.0, gt=0, le=1_000_000, description="When the U-Net stops learning: share up to 1, else a step.")
    te1_stop: float = Field(1.0, gt=0, le=1_000_000, description="When text encoder 1 stops: a share up to 1, else a step.")
    te2_stop: float = Field(1.0, gt=0, le=1_000_000, description="When text encoder 2 stops: a share up to 1, else a step.")


class Noise(Group):
    """What is asked of the U-Net, and how its answer is judged."""

    loss: Loss = Field("mse", description="mse, or huber: pictures unlike the others pull less.")
    huber_c: float = Field(0.1, gt=0, le=1, description="Errors above this count less in the Huber loss.")
    huber_schedule: HuberSchedule = Field("snr", description="constant, or snr: only noisy steps are judged with huber_c.")
    min_snr_gamma: float = Field(5.0, ge=0, le=100, description="Min-SNR gamma: evens the noise levels out; 0 turns it off.")
    debiased: bool = Field(False, description="Weigh the noise levels by 1 / sqrt(SNR), in place of min-SNR.")
    noise_offset: float = Field(
        0.0, ge=0, le=1, description="Noise shared by a whole channel, so that overall colour is learnt."
    )
    multires_noise: int = Field(
        0, ge=0, le=10, description="Levels of coarser noise, for darker and brighter pictures; 0: none."
    )
    multires_discount: float = Field(0.3, gt=0, lt=1, description="Strength of each level of coarser noise over the last.")
    ip_noise_gamma: float = Field(0.0, ge=0, le=1, description="Noise that the U-Net is shown beyond what it should find.")
    timestep_sampling: TimestepSampling = Field("uniform", description="uniform, or logit_normal: middle steps more often.")
    timestep_mean: float = Field(0.0, ge=-5, le=5, description="Centre of logit_normal: above 0 more noise is practised.")
    timestep_std: float = Field(1.0, gt=0, le=5, description="Width of logit_normal.")
    timestep_min: int = Field(0, ge=0, le=999, description="Lowest time step practised: 0 is almost no noise.")
    timestep_max: int = Field(999, ge=0, le=999, description="Highest time step practised: 999 is almost only noise.")

    @model_validator(mode="after")
    def _range_of_times(self) -> Self:
        if self.timestep_max < self.timestep_min:
            raise ValueError(f"timestep_max, {self.timestep_max}, must not be below timestep_min, {self.timestep_min}.")
        return self


class Pictures(Group):
    """How pictures are shown."""

    resolutions: tuple[Annotated[int, Field(ge=64, le=2048, multiple_of=32)], ...] = Field(
        (), description="Further resolutions: every picture is trained at each, in turn."
    )
    max_upscale: float = Field(
        2.0, ge=1, le=64, description="Smaller pictures are not enlarged by more: they are trained at a lower resolution."
    )
    flip: bool = Field(False, description="Whether every picture is also trained mirrored, left for right.")
    crops: int = Field(1, ge=1, le=16, description="Ways in which a picture that does not fill its bucket exactly is cropped.")
    masked_loss: bool = Field(
        False, description="Whether only what a mask shows is learnt: NAME-masklabel.png beside NAME, or transparency."
    )
    mask_floor: float = Field(0.0, ge=0, le=1, description="How much counts what a mask hides.")
    prior_dataset: str = Field("", description="Folder of pictures that are not of the style, shown in turn with the others.")
    prior_weight: float = Field(1.0, ge=0, le=10, description="How much the pictures of prior_dataset count.")


class Captions(Group):
    """How captions are shown."""

    caption_dropout: float = Field(0.05, ge=0, le=1, description="Share of the pictures shown without their caption.")
    shuffle_tags: bool = Field(False, description="Whether the tags of a caption, which commas part, change places each time.")
    keep_tags: int = Field(0, ge=0, le=100, description="So many tags, after the trigger word, are neither moved nor left out.")
    tag_dropout: float = Field(0.0, ge=0, le=1, description="Share of the tags that are left out of a caption, anew each time.")
    wildcards: bool = Field(
        False, description="Whether {red|blue} in a caption stands for one of its alternatives, another one each time."
    )
    cache_text: bool = Field(True, description="Whether text is encoded only once, where no text encoder is trained.")
    caption_variants: int = Field(
        16, ge=1, le=256, description="So many variants of a caption are encoded, where it varies and text is encoded once."
    )


class Watching(Group):
    """What is drawn, measured and kept on the way."""

    checkpoint_every: int = Field(100, ge=1, description="Steps between checkpoints.")
    keep_checkpoints: int = Field(3, ge=1, le=1000, description="So many of the last checkpoints are kept.")
    sample_every: int = Field(100, ge=0, description="Steps between sample pictures; 0 draws none.")
    sample_prompts: tuple[str, ...] = Field((), description="What the samples show; empty takes captions of the dataset.")
    sample_untriggered: bool = Field(False, description="Whether each sample is also drawn without the trigger word.")
    sample_weight: float = Field(1.0, ge=0, le=2, description="Weight of the LoRA in the samples.")
    sample_steps: int = Field(25, ge=1, le=200, description="Sampler steps of a sample picture.")
    sample_cfg: float = Field(6.0, ge=1, le=30, description="CFG scale of a sample picture.")
    validation_share: float = Field(
        0.0, ge=0, le=0.5, description="Share of the pictures that is held out to measure progress."
    )
    validate_every: int = Field(50, ge=1, description="Steps between measurements on the held-out pictures.")
    tensorboard: bool = Field(False, description="Whether losses and samples are also written for TensorBoard.")


class Loading(Group):
    """What the base is, and how it is held in memory."""

    precision: Literal["auto", Precision] = Field("auto", description="How the base is kept; auto takes the fastest that fits.")
    recompute: Literal["auto", Recompute] = Field(
        "auto", description="Gradient checkpointing: saves memory, costs up to a third of the speed; auto if it must be."
    )
    family: Literal["auto", Family] = Field("auto", description="Whose descendant the base is, where its file does not tell.")
    prediction: Literal["auto", Prediction] = Field(
        "auto", description="What the base's U-Net answers with, where its file does not tell."
    )


GROUPS: tuple[type[Group], ...] = (Main, Lora, Learning, Noise, Pictures, Captions, Watching, Loading)
"""The groups in the order in which they are shown; a group's docstring is its title."""


class Settings(
    Loading, Watching, Captions, Pictures, Noise, Learning, Lora, Main
):  # pydantic puts the last base's fields first
    """What a training does, apart from its pictures and its base."""
