"""YAMNet with the classic head as a PyTorch user writes it, for (batch, 1, 96, 64) patches."""

import torch
from torch import nn

_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1),
    (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip


def _conv(inputs, outputs, size, stride=1, groups=1):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-4),
        nn.ReLU(inplace=True),
    )


class YAMNet(nn.Module):
    """Patches to class scores before the softmax."""

    def __init__(self, classes=10):
        super().__init__()
        layers, inputs = [_conv(1, 32, 3, 2)], 32
        for outputs, stride in _BLOCKS:
            layers += [_conv(inputs, inputs, 3, stride, inputs), _conv(inputs, outputs, 1)]
            inputs = outputs
        self.base = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Sequential(
            nn.Linear(1024, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, classes)
        )

    def forward(self, x):
        """Scores (batch, classes)."""
        return self.head(self.base(x))


def random_patches(count, classes=10):
    """Patches and labels."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((count, 1, 96, 64), generator=generator) * 2 - 4
    return x, torch.randint(0, classes, (count,), generator=generator)
