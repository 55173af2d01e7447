"""Train the starter's VAE: first the whole autoencoder on crops, then the decoder alone on whole pictures.

    python assets/make/vae.py joint        # about half an hour on 2 cores; fixes the latent space
    python assets/make/vae.py polish       # the decoder only; may run beside the U-Net's training
    python assets/make/vae.py report       # PSNR of flat and of line pictures

Both phases go on from their last checkpoint in the work folder when they are started again. After `joint` the latents
are whitened per channel, folded into the 1x1 convolutions around them, so that SDXL's scaling factor 0.13025 is exact.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from scenes import SIZE, random_scene
from treatments import draw, random_treatment
from work import STARTER, cosine, device, load_state, save_state, work_folder

PICTURES = 16_000
SMALL_CROPS = 600
"""Steps on crops of 32 pixels: few colours in each, so that the latents learn place before anything else."""
SCALE = 0.13025
"""SDXL's scaling factor."""


def new_vae() -> AutoencoderKL:
    """SDXL's autoencoder class, f = 8 and 4 channels, narrow."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=SIZE,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 64, 96, 96),
        scaling_factor=SCALE,
        force_upcast=False,
    )


def rendered(folder: Path, count: int = PICTURES, seed: int = 1) -> np.ndarray:
    """`count` pictures of the base's treatments, uint8 (n, 128, 128, 3); drawn once, then read from `folder`."""
    path = folder / f"pictures-{seed}-{count}.npy"
    if not path.exists():
        random = Random(seed)
        drawn = [np.asarray(draw(random_scene(random), random_treatment(random))) for _ in range(count)]
        np.save(path, np.stack(drawn))
    loaded: np.ndarray = np.load(path, mmap_mode="r")
    return loaded


def as_tensor(pictures: np.ndarray, generator: np.random.Generator, recolour: float = 0.5) -> torch.Tensor:
    """uint8 (n, h, w, 3) -> float (n, 3, h, w) in -1 … 1, a share of them in other colours.

    A VAE that sees only the world's own colours cannot show a style's: so channels change places and are mapped to random
    ranges.
    """
    values = pictures.astype(np.float32) / 127.5 - 1
    for index in np.flatnonzero(generator.random(len(values)) < recolour):
        ends = np.sort(generator.uniform(-1.1, 1.1, size=(2, 3)), axis=0)
        if generator.random() < 0.5:
            ends = ends[::-1]
        shuffled = values[index][..., generator.permutation(3)]
        values[index] = np.clip(ends[0] + (ends[1] - ends[0]) * (shuffled + 1) / 2, -1, 1)
    return torch.from_numpy(values).permute(0, 3, 1, 2)


def crops(pictures: np.ndarray, generator: np.random.Generator, batch: int, side: int) -> torch.Tensor:
    """Random crops, the busier one of each two, since most of a drawing is flat."""
    chosen = []
    for index in generator.integers(len(pictures), size=batch):
        places = [generator.integers(0, SIZE - side + 1, size=2) for _ in range(2)]
        candidates = [pictures[index, y : y + side, x : x + side] for y, x in places]
        chosen.append(max(candidates, key=lambda crop: float(crop.std())))
    return as_tensor(np.stack(chosen), generator)


def gradients(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences of neighbouring pixels, across and down."""
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def reconstruction_loss(made: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """L1 + MSE + half the L1 of the gradients, which keeps edges sharp."""
    edges = sum(F.l1_loss(a, b) for a, b in zip(gradients(made), gradients(true), strict=True))
    return F.l1_loss(made, true) + F.mse_loss(made, true) + 0.5 * edges


@torch.no_grad()
def whiten(vae: AutoencoderKL, pictures: np.ndarray) -> None:
    """Fold a shift and a scale per channel into the 1x1 convolutions: scaled latents get mean 0 and deviation 1."""
    generator = np.random.default_rng(0)
    where = next(vae.parameters()).device
    batches = [as_tensor(pictures[i : i + 32], generator, recolour=0).to(where) for i in range(0, 512, 32)]
    latents = torch.cat([vae.encode(batch).latent_dist.mode() for batch in batches])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3)) * SCALE
    into, out = vae.quant_conv, vae.post_quant_conv
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight *= deviation[None, :, None, None]
    into.weight[:4] /= deviation[:, None, None, None]
    into.bias[:4] = (into.bias[:4] - mean) / deviation
    into.bias[4:] -= 2 * deviation.log()


def train(phase: str, steps: int, rate: float, folder: Path) -> AutoencoderKL:
    """Run one phase to its end, from its last checkpoint if there is one."""
    torch.manual_seed(1)
    vae = new_vae().to(device())
    with torch.no_grad():  # begin with hardly any noise in the latents: the plateau at "one colour per crop" ends sooner
        vae.quant_conv.weight[4:] *= 0.1
        vae.quant_conv.bias[4:] = -6
    if phase == "polish":
        vae.load_state_dict(load_state(folder / "vae-joint.pt")["model"])
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    trained = [p for p in vae.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.99), weight_decay=1e-3)
    path, start = folder / f"vae-{phase}.pt", 0
    if path.exists():
        state = load_state(path)
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    pictures, began, smooth = rendered(folder), time.time(), 0.0
    for step in range(start, steps):
        generator = np.random.default_rng([1, step])
        if phase == "joint":
            true = crops(pictures, generator, 32, 32) if step < SMALL_CROPS else crops(pictures, generator, 16, 64)
        else:
            true = as_tensor(pictures[np.sort(generator.choice(len(pictures), 4, replace=False))], generator)
        true = true.to(device())
        with torch.autocast(device().type, torch.bfloat16):
            posterior = vae.encode(true).latent_dist
            made = vae.decode(posterior.sample()).sample.float()
        loss = reconstruction_loss(made, true)
        if phase == "joint":
            loss = loss + 2e-4 * posterior.kl().float().mean() / posterior.mean[0].numel()
        for group in optimizer.param_groups:
            group["lr"] = rate * cosine(step, steps, warmup=100)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 5.0)
        optimizer.step()
        smooth = 0.98 * smooth + 0.02 * loss.item() if smooth else loss.item()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            psnr = -10 * math.log10(F.mse_loss(made.detach(), true).item() / 4)
            print(f"{phase} {step + 1}/{steps} loss {smooth:.4f} psnr {psnr:.2f} {(time.time() - began):.0f} s", flush=True)
            if (step + 1) % 300 == 0 or step + 1 == steps:
                if phase == "joint" and step + 1 == steps:
                    whiten(vae, pictures)
                save_state(path, {"model": vae.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1})
                vae.half().save_pretrained(STARTER / "vae")
                vae.float()
    return vae


@torch.no_grad()
def report(folder: Path) -> None:
    """PSNR in dB on pictures that no phase saw, flat ones and line drawings apart."""
    vae = AutoencoderKL.from_pretrained(STARTER / "vae", torch_dtype=torch.float32)
    for kinds in (("flat",), ("ink", "outlined")):
        random, errors = Random(99), list[float]()
        while len(errors) < 64:
            scene, treatment = random_scene(random), random_treatment(random)
            if treatment.kind in kinds:
                true = torch.from_numpy(np.array(draw(scene, treatment))).permute(2, 0, 1)[None].float() / 127.5 - 1
                made = vae.decode(vae.encode(true).latent_dist.mode()).sample.clamp(-1, 1)
                errors.append(F.mse_loss(made, true).item() / 4)
        each = [-10 * math.log10(e) for e in errors]
        whole = -10 * math.log10(sum(errors) / len(errors))
        print(f"{'/'.join(kinds)}: {whole:.2f} dB of the mean error, {sum(each) / len(each):.2f} dB in the mean")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phase", choices=("joint", "polish", "report"))
    parser.add_argument("--steps", type=int, default=None)
    arguments = parser.parse_args()
    if arguments.phase == "report":
        report(work_folder())
    else:
        defaults = {"joint": (4800, 1e-3), "polish": (2800, 1e-3)}[arguments.phase]
        train(arguments.phase, arguments.steps or defaults[0], defaults[1], work_folder())
