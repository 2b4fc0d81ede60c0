"""MobileNetV3-Large (Howard et al., "Searching for MobileNetV3", 2019, table 1)."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.gallery.torch_cnn import conv

__all__ = ["LARGE", "Block", "MobileNetV3"]

Row = tuple[int, int, int, bool, str, int]
"""Kernel size, inner and outer channels, whether channels are gated, activation, stride."""

LARGE: tuple[Row, ...] = (
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hardswish", 2),
    (3, 200, 80, False, "hardswish", 1),
    (3, 184, 80, False, "hardswish", 1),
    (3, 184, 80, False, "hardswish", 1),
    (3, 480, 112, True, "hardswish", 1),
    (3, 672, 112, True, "hardswish", 1),
    (5, 672, 160, True, "hardswish", 2),
    (5, 960, 160, True, "hardswish", 1),
    (5, 960, 160, True, "hardswish", 1),
)


class Gate(nn.Module):
    """A factor for each channel, from the mean of all (squeeze and excitation)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(8, channels // 4)
        self.body = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, inner, 1), nn.ReLU(), nn.Conv2d(inner, channels, 1),
            nn.Hardsigmoid(),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the shape that comes in."""
        gated: torch.Tensor = x * self.body(x)
        return gated


class Block(nn.Module):
    """Expand, filter by channel, gate, project; added to what came in where the shape stays."""

    def __init__(self, inputs: int, row: Row) -> None:
        super().__init__()
        size, inner, outputs, gated, act, stride = row
        self.expand = conv(inputs, inner, 1, act=act) if inner != inputs else nn.Identity()
        self.filter = conv(inner, inner, size, stride, groups=inner, act=act)
        self.gate = Gate(inner) if gated else nn.Identity()
        self.project = conv(inner, outputs, 1, act="none")
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [batch, outputs, height / stride, width / stride]."""
        y: torch.Tensor = self.project(self.gate(self.filter(self.expand(x))))
        return x + y if self.shortcut else y


class MobileNetV3(nn.Module):
    """A stem, a row of blocks, and a classifier of two layers."""

    def __init__(self, rows: tuple[Row, ...] = LARGE, classes: int = 1000) -> None:
        super().__init__()
        blocks: list[nn.Module] = [conv(3, 16, 3, 2, act="hardswish")]
        channels = 16
        for row in rows:
            blocks.append(Block(channels, row))
            channels = row[2]
        self.features = nn.Sequential(*blocks, conv(channels, 6 * channels, 1, act="hardswish"))
        self.classifier = nn.Sequential(nn.Linear(6 * channels, 1280), nn.Hardswish(), nn.Linear(1280, classes))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return a score for each class: [batch, 3, height, width] in, [batch, classes] out."""
        scores: torch.Tensor = self.classifier(self.features(image).mean((2, 3)))
        return scores
