"""ResNet-50 in plain PyTorch: random weights from a fixed seed, batch statistics settled.

The architecture is that of He et al., "Deep Residual Learning for Image Recognition" (2015), table 1, with the stride
on the 3x3 convolution. The weights are random, so that nothing is downloaded; what it computes costs the same.

    enginery optimize benchmarks/models/resnet50.py:resnet50 --shapes "image=1..8..32x3x224x224"
"""

from __future__ import annotations

import torch
from torch import nn

SETTLING_BATCHES = 8


def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution without bias, followed by batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False), nn.BatchNorm2d(outputs)
    )


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut; `width` channels inside, four times as many outside."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.reduce = conv(inputs, width, 1)
        self.spatial = conv(width, width, 3, stride)
        self.expand = conv(width, 4 * width, 1)
        same = stride == 1 and inputs == 4 * width
        self.shortcut = nn.Identity() if same else conv(inputs, 4 * width, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [batch, 4 * width, height / stride, width / stride]."""
        y = self.relu(self.reduce(x))
        y = self.expand(self.relu(self.spatial(y)))
        return self.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """A stem, four stages of bottlenecks, and a linear classifier."""

    def __init__(self, blocks: tuple[int, ...] = (3, 4, 6, 3), width: int = 64, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1))
        stages, channels = [], width
        for stage, count in enumerate(blocks):
            inner = width * 2**stage
            stages.append(
                nn.Sequential(
                    *(
                        Bottleneck(channels if block == 0 else 4 * inner, inner, 2 if block == 0 and stage else 1)
                        for block in range(count)
                    )
                )
            )
            channels = 4 * inner
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return a score for each class: [batch, 3, height, width] in, [batch, classes] out."""
        scores: torch.Tensor = self.classifier(self.pool(self.stages(self.stem(image))).flatten(1))
        return scores


def settle(model: nn.Module, *, size: int, generator: torch.Generator) -> None:
    """Let batch normalisation see some batches, so that no layer's output is far from unit variance."""
    model.train()
    with torch.no_grad():
        for _ in range(SETTLING_BATCHES):
            model(torch.randn(8, 3, size, size, generator=generator))
    model.eval()


def resnet50() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Return ResNet-50 (25.6 million parameters) in evaluation mode, and one example image."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ResNet()
    settle(model, size=96, generator=generator)
    return model, {"image": torch.randn(1, 3, 224, 224, generator=generator)}
