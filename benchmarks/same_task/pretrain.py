"""Pretrains the network on the source task, once for all programs. Args: path.

An ordinary PyTorch loop of about a minute on one core. It belongs to none of the programs,
so its lines and seconds do not count. Where the file is there, nothing is done.
"""

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from benchmarks.same_task import pictures, vit_torch

COUNT, HELD_BACK, EPOCHS, BATCH, RATE = 8_000, 500, 12, 64, 2e-3
# It reaches 0.96; with less, something is wrong, and tuning would start from it.
ENOUGH = 0.9


def pretrain(path: Path) -> float:
    """Train, write the weights; returns the accuracy on held-back pictures, 0 to 1."""
    torch.manual_seed(0)
    x, y = vit_torch.tensors(pictures.source(COUNT + HELD_BACK))
    network = vit_torch.ViT(pictures.SOURCE_CLASSES)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.01)
    steps = EPOCHS * (COUNT // BATCH)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, pct_start=0.15)
    for _ in range(EPOCHS):
        order = torch.randperm(COUNT)
        for rows in order[: COUNT // BATCH * BATCH].split(BATCH):
            loss = functional.cross_entropy(network(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    network.eval()
    with torch.no_grad():
        found = network(x[COUNT:]).argmax(1)
    vit_torch.save(network, path)
    return float((found == y[COUNT:]).float().mean())


def prepare(args: dict[str, Any]) -> Any:
    """As a side of the harness; a round trains if the file is not there yet."""
    path = Path(args["path"])

    def run() -> None:
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            accuracy = pretrain(path)
            if accuracy < ENOUGH:
                path.unlink()
                raise RuntimeError(f"only {accuracy:.3f} of the held-back pictures are right")

    return run
