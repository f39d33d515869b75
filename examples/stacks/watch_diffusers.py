"""diffusers: `unvanish.watch` in your own loop. A healthy UNet, then a rate 1,000 times too large."""

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import nn

import unvanish


def train(rate: float) -> None:
    torch.manual_seed(0)
    sizes = {"block_out_channels": (16, 32), "norm_num_groups": 8, "layers_per_block": 1}
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    model = UNet2DModel(sample_size=16, in_channels=1, out_channels=1, **sizes, **blocks)
    noises = DDPMScheduler(num_train_timesteps=100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    pictures = torch.zeros(64, 1, 16, 16)
    pictures[:, :, 4:12, 4:12] = 1.0

    with unvanish.watch(model, optimizer) as watch:
        for step in range(30):
            batch = pictures[step % 4 * 16 :][:16]
            noise, times = torch.randn_like(batch), torch.randint(0, 100, (16,))
            guess = model(noises.add_noise(batch, noise, times), times).sample
            optimizer.zero_grad()
            nn.functional.mse_loss(guess, noise).backward()
            optimizer.step()
    print(f"rate {rate:g}:", watch, sep="\n")


def main() -> None:
    train(1e-3)
    train(1.0)


if __name__ == "__main__":
    main()
