"""Train the starter's U-Net and its two text encoders together, from nothing, on drawn scenes.

    python assets/make/unet.py               # goes on from its last checkpoint; about an hour on one core
    python assets/make/unet.py --steps 3000  # ends earlier: the learning rate falls over the last quarter

Epsilon prediction with SDXL's schedule, min-SNR 5 and noise offset 0.15 (without it the ground keeps the colour of the
seed's noise and no style can move it). What is written is the exponential moving average of the weights.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from PIL import Image
from scenes import SIZE, Scene, random_scene
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from treatments import Treatment, describe, draw, random_treatment
from work import STARTER, device, load_state, save_state, work_folder

PICTURES = 16_000
BATCH = 32
RATE = 1e-3
NOISE_OFFSET = 0.15
EMA = 0.998
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
LOOK_AT = (
    "a red house on the left, on grass, blue sky",
    "a blue car in the middle, on sand, sunset sky",
    "a purple fish on the right, on water, grey sky",
    "a white rocket in the middle, on earth, night sky with a star",
    "a yellow flower in the middle, on grass, blue sky",
    "an orange mushroom on the left and a green tree on the right, on snow, blue sky",
    "a black boat on the left and a pink house on the right, on water, grey sky",
    "a car in the middle, on grass, blue sky, thick red lines on yellow paper",
    "a house on the left, on snow, grey sky, thick white lines on blue paper",
    "a tree in the middle, on sand, blue sky, purple and yellow duotone",
    "a blue mushroom in the middle, on grass, blue sky, thick black outlines",
    "a rocket on the right, on grass, night sky, black silhouette on pink",
)


def new_unet() -> UNet2DConditionModel:
    """SDXL's block types, conditioning and wiring at a twentieth of its widths."""
    return UNet2DConditionModel(
        sample_size=SIZE // 8,
        in_channels=4,
        out_channels=4,
        layers_per_block=2,
        block_out_channels=(64, 96, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 1, 1],
        attention_head_dim=[2, 3, 4],
        cross_attention_dim=256,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=128 + 6 * 32,
    )


def new_text_encoder(second: bool, tokens: int) -> CLIPTextModel | CLIPTextModelWithProjection:
    """Three layers of width 128; the second one has SDXL's projection for the pooled output."""
    config = CLIPTextConfig(
        vocab_size=tokens,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=128,
        max_position_embeddings=77,
        hidden_act="gelu" if second else "quick_gelu",
        bos_token_id=tokens - 2,
        eos_token_id=tokens - 1,
        pad_token_id=0 if second else tokens - 1,
    )
    model = CLIPTextModelWithProjection(config) if second else CLIPTextModel(config)
    # CLIP's own 0.02 leaves the words nearly equal to a network that is trained for minutes.
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.2)
    return model


class Starter(torch.nn.Module):
    """U-Net and text encoders as one module, so that optimizer, average and checkpoint see one thing."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizers = [CLIPTokenizer.from_pretrained(STARTER / name) for name in ("tokenizer", "tokenizer_2")]
        self.te1 = new_text_encoder(False, len(self.tokenizers[0]))
        self.te2 = new_text_encoder(True, len(self.tokenizers[1]))
        self.unet = new_unet()

    def encode(self, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Context (n, 77, 256) from both penultimate layers, and the pooled output (n, 128) of encoder 2."""
        rows = [
            torch.tensor(t(captions, padding="max_length", max_length=77, truncation=True).input_ids, device=device())
            for t in self.tokenizers
        ]
        first = self.te1(rows[0], output_hidden_states=True).hidden_states[-2]
        second = self.te2(rows[1], output_hidden_states=True)
        return torch.cat([first, second.hidden_states[-2]], dim=-1), second.text_embeds


@torch.no_grad()
def latents(folder: Path) -> torch.Tensor:
    """Mean and deviation of every picture's scaled latents, (n, 8, 16, 16) half; made in parts of 1,000."""
    vae = AutoencoderKL.from_pretrained(STARTER / "vae", torch_dtype=torch.float32).to(device())
    pool = []
    for part in range(PICTURES // 1000):
        path = folder / f"latents-{part}.pt"
        if not path.exists():
            pictures = [np.array(draw(*drawing(index))) for index in range(1000 * part, 1000 * (part + 1))]
            true = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
            rows = []
            for batch in true.split(50):
                with torch.autocast(device().type, torch.bfloat16):
                    posterior = vae.encode(batch.to(device())).latent_dist
                rows.append(torch.cat([posterior.mean, posterior.std], 1).float() * vae.config.scaling_factor)
            save_state(path, {"latents": torch.cat(rows).half().cpu()})
            print(f"latents {part + 1}/{PICTURES // 1000}", flush=True)
        pool.append(load_state(path)["latents"])
    return torch.cat(pool)


def drawing(index: int) -> tuple[Scene, Treatment]:
    """Scene and treatment of the pool's picture `index`."""
    random = Random(index * 7919 + 17)
    return random_scene(random), random_treatment(random)


def batch_at(step: int, pool: torch.Tensor) -> tuple[torch.Tensor, list[str], torch.Tensor]:
    """Latents (n, 4, 16, 16), captions and SDXL's time ids (n, 6) of one step; a function of the step alone."""
    generator = np.random.default_rng([2, step])
    indices = generator.integers(len(pool), size=BATCH)
    random = Random(step)
    captions = [describe(*drawing(int(index)), random=random) for index in indices]
    captions = ["" if random.random() < 0.04 else caption for caption in captions]
    mean, deviation = pool[torch.from_numpy(indices)].float().to(device()).chunk(2, dim=1)
    ids = torch.tensor([[SIZE, SIZE, 0, 0, SIZE, SIZE]] * BATCH, dtype=torch.float32)
    for row in ids:
        if random.random() < 0.3:  # any original size, so that pictures of any size can be trained on later
            row[0], row[1] = random.randint(96, 1024), random.randint(96, 1024)
    return mean + deviation * torch.randn_like(mean), captions, ids.to(device())


def loss_at(model: Starter, pool: torch.Tensor, schedule: DDPMScheduler, step: int) -> torch.Tensor:
    """Epsilon loss, weighted by min(SNR, 5) / SNR (arXiv 2303.09556)."""
    torch.manual_seed(step)
    clean, captions, ids = batch_at(step, pool)
    noise = torch.randn_like(clean) + NOISE_OFFSET * torch.randn(BATCH, 4, 1, 1, device=clean.device)
    times = torch.randint(0, 1000, (BATCH,), device=clean.device)
    noisy = schedule.add_noise(clean, noise, times)
    kept = (torch.rand(BATCH, device=clean.device) > 0.08).float()
    with torch.autocast(device().type, torch.bfloat16):
        context, pooled = model.encode(captions)
        conditions = {"text_embeds": pooled * kept[:, None], "time_ids": ids}
        made = model.unet(noisy, times, context * kept[:, None, None], added_cond_kwargs=conditions).sample
    share = schedule.alphas_cumprod.to(clean.device)[times]
    snr = share / (1 - share)
    each: torch.Tensor = (made.float() - noise).pow(2).mean((1, 2, 3)) * snr.clamp(max=5) / snr
    return each.mean()


def rate_at(step: int, steps: int) -> float:
    """Warm-up, a plateau, then down to zero over the last quarter."""
    return min((step + 1) / 200, 1.0, max(0.0, (steps - step) / (0.25 * steps)))


def pipeline(model: Starter) -> StableDiffusionXLPipeline:
    """The whole base as diffusers knows it; draws with trailing spacing, so that it begins in pure noise."""
    return StableDiffusionXLPipeline(
        vae=AutoencoderKL.from_pretrained(STARTER / "vae"),
        unet=model.unet,
        text_encoder=model.te1,
        text_encoder_2=model.te2,
        tokenizer=model.tokenizers[0],
        tokenizer_2=model.tokenizers[1],
        scheduler=EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="trailing"),
        add_watermarker=False,
    )


def look(model: Starter, path: Path) -> None:
    """A sheet of the prompts above, two seeds each."""
    drawer = pipeline(model.float()).to(device())
    drawer.set_progress_bar_config(disable=True)
    sheet = Image.new("RGB", (SIZE * len(LOOK_AT), 2 * SIZE))
    for row in range(2):
        made = drawer(
            list(LOOK_AT),
            num_inference_steps=20,
            guidance_scale=3.5,
            height=SIZE,
            width=SIZE,
            generator=torch.Generator().manual_seed(row),
        ).images
        for column, picture in enumerate(made):
            sheet.paste(picture, (column * SIZE, row * SIZE))
    sheet.save(path)


def train(steps: int, folder: Path, every: int) -> None:
    """Train to `steps`; every `every` steps a checkpoint and a sheet, at the end the folder `assets/starter`."""
    torch.manual_seed(0)
    model, average = Starter().to(device()), Starter().to(device())
    average.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=1e-2, fused=True)
    path, start = folder / "unet.pt", 0
    if path.exists():
        state = load_state(path)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    pool, schedule, began, smooth = latents(folder), DDPMScheduler(**SCHEDULE), time.time(), 0.0
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * rate_at(step, steps)
        with sdpa_kernel(SDPBackend.MATH):  # a third faster than the fused kernel's backward on a CPU
            loss = loss_at(model, pool, schedule, step)
            optimizer.zero_grad()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        keep = min(EMA, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)
        smooth = 0.99 * smooth + 0.01 * loss.item() if smooth else loss.item()
        if (step + 1) % 50 == 0:
            each = (time.time() - began) / (step + 1 - start)
            print(f"{step + 1}/{steps} loss {smooth:.4f} {each:.3f} s/step", flush=True)
        if (step + 1) % every == 0 or step + 1 == steps:
            save_state(
                path,
                {
                    "model": model.state_dict(),
                    "average": average.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step + 1,
                },
            )
            look(average, folder / f"look-{step + 1:06d}.png")
    pipeline(average.half()).to(dtype=torch.float16).save_pretrained(STARTER)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4600)
    parser.add_argument("--every", type=int, default=500)
    arguments = parser.parse_args()
    train(arguments.steps, work_folder(), arguments.every)
