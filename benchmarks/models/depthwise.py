"""A residual network with depthwise convolutions for 8x8 digits, which plain INT8 spoils.

Its blocks are those of MobileNetV2: 1x1 up, depthwise 3x3, 1x1 down, and a sum. In one of them the scales of batch
normalisation begin far apart, as training leaves them in MobileNets (Nagel et al., "Data-Free Quantization Through
Weight Equalization and Bias Correction", 2019, figure 2): a channel's range there is up to a thousand times that of
another, and one scale for the whole activation leaves the narrow channels next to nothing.

    enginery optimize benchmarks/models/depthwise.py:depthwise --shapes "image=1..32..64x1x8x8" \
        --data benchmarks/models/depthwise.py:heldout --calibration benchmarks/models/depthwise.py:calibration \
        --precision best --max-drop top1=0.005
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

EPOCHS = 12
BATCH = 64
NOISE = 0.15
COPIES = 5
UNEVEN_BLOCK = 1
SPREAD = 2.0


class Block(nn.Module):
    """1x1 up by four, depthwise 3x3, 1x1 down; a sum with the input where the size stays."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        inner = 4 * inputs
        self.expand = nn.Sequential(nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU())
        self.depthwise = nn.Sequential(
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.ReLU()
        )
        self.project = nn.Sequential(nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.same = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [batch, outputs, height / stride, width / stride]."""
        y: torch.Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.same else y


class DepthwiseNet(nn.Module):
    """A stem, nine blocks and a linear classifier."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        wide = 2 * width
        self.blocks = nn.Sequential(
            *(Block(width, width) for _ in range(4)), Block(width, wide, 2), *(Block(wide, wide) for _ in range(4))
        )
        self.classifier = nn.Linear(wide, 10)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return ``scores``, float32 [batch, 10]; ``image`` is float32 [batch, 1, 8, 8]."""
        return {"scores": self.classifier(self.blocks(self.stem(image)).mean((2, 3)))}


def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the images for training and held out, then the labels of each."""
    found = load_digits()
    images, labels = (found.images / 16.0).astype(np.float32)[:, None], found.target.astype(np.int64)
    parts = train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)
    return tuple(map(torch.from_numpy, parts))  # type: ignore[return-value]


def disturbed(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return the images moved by up to a pixel, with noise."""
    steps = torch.randint(-1, 2, (len(images), 2), generator=generator).tolist()
    moved = torch.stack([one.roll((down, right), (1, 2)) for one, (down, right) in zip(images, steps, strict=True)])
    return (moved + NOISE * torch.randn(moved.shape, generator=generator)).clamp(0, 1)


def uneven(block: Block) -> None:
    """Let the scales of a block's normalisations begin far apart."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for norm in (block.expand[1], block.depthwise[1]):
            norm.weight.mul_(torch.exp(SPREAD * torch.randn(norm.weight.shape, generator=generator)))


def depthwise() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Train the network, which takes about ten seconds, and return it in evaluation mode, with two example digits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # such small layers are slower on several, and sums then depend on how many
    torch.manual_seed(0)
    net = DepthwiseNet()
    uneven(net.blocks[UNEVEN_BLOCK])
    images, _, labels, _ = digits()
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, 0.9, nesterov=True)
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, steps)
    for _ in range(EPOCHS):
        seen = disturbed(images, generator)
        for rows in torch.randperm(len(images), generator=generator).split(BATCH):
            loss = nn.functional.cross_entropy(net(seen[rows])["scores"], labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    torch.set_num_threads(threads)
    return net.eval(), {"image": images[:2]}


def heldout() -> dict[str, np.ndarray[Any, Any]]:
    """Return digits that training never saw, each disturbed five times, and their labels."""
    _, images, _, labels = digits()
    generator = torch.Generator().manual_seed(2)
    rows = torch.cat([disturbed(images, generator) for _ in range(COPIES)])
    return {"image": rows.numpy(), "labels": labels.repeat(COPIES).numpy()}


def calibration() -> dict[str, np.ndarray[Any, Any]]:
    """Return 512 of the digits for training, disturbed."""
    images, *_ = digits()
    return {"image": disturbed(images[:512], torch.Generator().manual_seed(3)).numpy()}
