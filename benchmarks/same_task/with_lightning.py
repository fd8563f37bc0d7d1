"""The task with Lightning and finetuning-scheduler: a module, a schedule and a trainer."""

import tempfile
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from finetuning_scheduler import FinetuningScheduler, FTSCheckpoint, FTSEarlyStopping
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.same_task.pictures import TARGET_CLASSES, Part, Target
from benchmarks.same_task.vit_torch import pretrained, tensors

# Phases add up: what one thaws trains on in the later ones, at its own rate.
SCHEDULE = {
    0: {"params": ["network.head.*"], "max_transition_epoch": 20},
    1: {
        "params": ["network.norm.*", "network.blocks.[23].*"],
        "max_transition_epoch": 35,
        "lr": 3e-4,
    },
    2: {"params": ["network.(patches|positions|blocks.[01]).*"], "lr": 1e-4},
}


class Classifier(pl.LightningModule):
    """The network with its loss and its optimizer."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.network = pretrained(weights, TARGET_CLASSES)

    def training_step(self, batch: list[torch.Tensor], _index: int) -> torch.Tensor:
        """The loss."""
        x, y = batch
        return functional.cross_entropy(self.network(x), y)

    def validation_step(self, batch: list[torch.Tensor], _index: int) -> None:
        """Log the loss, by which phases end."""
        x, y = batch
        self.log("val_loss", functional.cross_entropy(self.network(x), y))

    def predict_step(self, batch: list[torch.Tensor], _index: int) -> torch.Tensor:
        """The most likely classes."""
        return self.network(batch[0]).argmax(1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam on what the first phase trains."""
        trained = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.Adam(trained, lr=1e-3)


def loader(part: Part, shuffle: bool = False) -> DataLoader:
    """Batches of 32."""
    return DataLoader(TensorDataset(*tensors(part)), batch_size=32, shuffle=shuffle)


def tune(weights: Path, target: Target, seed: int) -> np.ndarray:
    """Train in three phases; returns the classes of the test pictures."""
    pl.seed_everything(seed)
    module = Classifier(weights)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=50,
            callbacks=[
                FinetuningScheduler(ft_schedule=SCHEDULE),
                FTSEarlyStopping("val_loss", patience=5),
                FTSCheckpoint(monitor="val_loss"),
            ],
            default_root_dir=folder,
            logger=False,
            enable_progress_bar=False,
        )
        trainer.fit(module, loader(target.train, shuffle=True), loader(target.validation))
        found = trainer.predict(module, loader(target.test), ckpt_path="best")
    return torch.cat(found).numpy()
