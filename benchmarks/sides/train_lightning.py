"""The whole network with Lightning and finetuning-scheduler. Args: patches, batch.

The schedule has one phase, with all parameters, so that what is measured is the
stage on the whole network. A round is a `Trainer.fit` of two epochs, of which the
second is timed.
"""

import logging
import tempfile
import time
import warnings

import lightning.pytorch as pl
import torch
from finetuning_scheduler import FinetuningScheduler
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.sides.yamnet_torch import YAMNet, random_patches


class Module(pl.LightningModule):
    """What a Lightning user writes around a network."""

    def __init__(self):
        super().__init__()
        self.network = YAMNet()
        self.loss_of = torch.nn.CrossEntropyLoss()

    def training_step(self, batch, _index):
        """The loss."""
        inputs, labels = batch
        loss = self.loss_of(self.network(inputs), labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Clock(pl.Callback):
    """Seconds of each epoch."""

    def __init__(self):
        self.seconds = []
        self.began = 0.0

    def on_train_epoch_start(self, trainer, module):
        """Start."""
        self.began = time.perf_counter()

    def on_train_epoch_end(self, trainer, module):
        """Stop."""
        self.seconds.append(time.perf_counter() - self.began)


def prepare(args):
    """A `Trainer.fit` a round."""
    warnings.filterwarnings("ignore")
    for name in ("lightning", "lightning.pytorch", "finetuning_scheduler"):
        logging.getLogger(name).setLevel(logging.ERROR)
    x, y = random_patches(args["patches"])
    loader = DataLoader(TensorDataset(x, y), batch_size=args["batch"], shuffle=True)

    def run():
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            scheduler = FinetuningScheduler(
                ft_schedule={0: {"params": [".*"], "max_transition_epoch": 2}},
                max_depth=0,
                epoch_transitions_only=True,
                restore_best=False,
                logging_level=logging.ERROR,
                log_dir=folder,
            )
            trainer = pl.Trainer(
                accelerator="cpu",
                max_epochs=2,
                callbacks=[scheduler, clock],
                default_root_dir=folder,
                logger=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            module = Module()
            trainer.fit(module, loader)
        if not all(p.requires_grad for p in module.parameters()):
            raise RuntimeError("some parameters were frozen")
        return {"seconds": clock.seconds[1], "items": len(x)}

    return run
