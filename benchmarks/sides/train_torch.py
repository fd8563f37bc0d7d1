"""The whole network in a plain PyTorch loop, BatchNorm in training mode.

Args: patches, batch, channels_last.
"""

import torch

from benchmarks.sides.yamnet_torch import YAMNet, random_patches


def prepare(args):
    """One warm-up, then one epoch a round."""
    layout = torch.channels_last if args["channels_last"] else torch.contiguous_format
    model = YAMNet().to(memory_format=layout).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_of = torch.nn.CrossEntropyLoss()
    x, y = random_patches(args["patches"])
    batches = [
        (part.to(memory_format=layout), labels)
        for part, labels in zip(x.split(args["batch"]), y.split(args["batch"]), strict=True)
    ]

    def run():
        for inputs, labels in batches:
            optimizer.zero_grad()
            loss = loss_of(model(inputs), labels)
            loss.backward()
            optimizer.step()
        return {"items": len(x)}

    run()
    return run
