"""A small vision transformer in PyTorch: patches of 8 x 8, width 64, four blocks.

`vit_keras` has the same network. Weights are kept as NPZ files, under the names of this
one's state dict.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

WIDTH, HEADS, BLOCKS, PATCH, SIZE = 64, 4, 4, 8, 32


class Block(nn.Module):
    """Self-attention, then two dense layers, each on normalized inputs and added to them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.norm_2 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.up = nn.Linear(WIDTH, 2 * WIDTH)
        self.down = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, width) to the same shape."""
        seen = self.norm_1(x)
        query, key, value = (
            part(seen).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.norm_2(x))))


class ViT(nn.Module):
    """Pictures (batch, 3, 32, 32) to the scores of the classes, before the softmax."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.positions = nn.Parameter(torch.randn((SIZE // PATCH) ** 2, WIDTH) * 0.02)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores (batch, classes)."""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(x)).mean(1))


def pretrained(weights: Path, classes: int) -> ViT:
    """The network with pretrained weights and a new head."""
    network = ViT(classes)
    with np.load(weights) as kept:
        base = {name: torch.from_numpy(kept[name]) for name in kept if "head" not in name}
    _, unknown = network.load_state_dict(base, strict=False)
    if unknown:
        raise ValueError(f"{weights.name} has weights that the network has not: {unknown}")
    return network


def save(network: ViT, path: Path) -> None:
    """Write all weights, the head included."""
    np.savez(path, **{name: value.numpy() for name, value in network.state_dict().items()})


def tensors(part: tuple[np.ndarray, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures with the colours first, as PyTorch has them, and labels."""
    x, y = part
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(y)
