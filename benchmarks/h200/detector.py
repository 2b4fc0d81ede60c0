"""A detector in the shape of today's YOLO networks: split residual stages, two pyramids, decoupled heads, decoding."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = ["Detector"]


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Module:
    """Return a convolution without bias, batch normalisation and SiLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False), nn.BatchNorm2d(outputs), nn.SiLU()
    )


class Residual(nn.Module):
    """Two convolutions, and a shortcut where one is asked for."""

    def __init__(self, channels: int, *, shortcut: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(channels, channels), conv(channels, channels))
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the shape that comes in."""
        y: torch.Tensor = self.body(x)
        return x + y if self.shortcut else y


class Split(nn.Module):
    """Half of the channels pass by; the other half goes through blocks, each of which is kept for the last layer."""

    def __init__(self, inputs: int, outputs: int, blocks: int, *, shortcut: bool) -> None:
        super().__init__()
        self.inner = outputs // 2
        self.first = conv(inputs, 2 * self.inner, 1)
        self.blocks = nn.ModuleList(Residual(self.inner, shortcut=shortcut) for _ in range(blocks))
        self.last = conv((2 + blocks) * self.inner, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [batch, outputs, height, width]."""
        parts = list(self.first(x).split(self.inner, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        found: torch.Tensor = self.last(torch.cat(parts, 1))
        return found


class Pool(nn.Module):
    """The same features at four sizes of neighbourhood."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.last = conv(channels, channels // 2, 1), conv(2 * channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the shape that comes in."""
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(functional.max_pool2d(parts[-1], 5, 1, 2))
        found: torch.Tensor = self.last(torch.cat(parts, 1))
        return found


class Head(nn.Module):
    """Distances of a box's four sides as distributions over `bins`, and a score for each class, apart."""

    def __init__(self, channels: int, classes: int, bins: int) -> None:
        super().__init__()
        self.boxes = nn.Sequential(conv(channels, 4 * bins), conv(4 * bins, 4 * bins), nn.Conv2d(4 * bins, 4 * bins, 1))
        self.scores = nn.Sequential(conv(channels, channels), conv(channels, channels), nn.Conv2d(channels, classes, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return [batch, 4 * bins, cells] and [batch, classes, cells]."""
        return self.boxes(x).flatten(2), self.scores(x).flatten(2)


class Detector(nn.Module):
    """Boxes in pixels and scores of the classes, for every cell of three grids.

    Args:
        size: height and width of the picture, a multiple of 32.
        width: channels after the stem; 32 is the usual small network.
        depth: blocks of the shortest stage.
        classes: how many.
        bins: of the distribution of each side's distance.
    """

    def __init__(self, size: int = 640, width: int = 32, depth: int = 1, classes: int = 80, bins: int = 16) -> None:
        super().__init__()
        w = [width, 2 * width, 4 * width, 8 * width, 16 * width]
        self.stem = nn.Sequential(conv(3, w[0], 3, 2), conv(w[0], w[1], 3, 2), Split(w[1], w[1], depth, shortcut=True))
        self.near = nn.Sequential(conv(w[1], w[2], 3, 2), Split(w[2], w[2], 2 * depth, shortcut=True))
        self.middle = nn.Sequential(conv(w[2], w[3], 3, 2), Split(w[3], w[3], 2 * depth, shortcut=True))
        self.far = nn.Sequential(conv(w[3], w[4], 3, 2), Split(w[4], w[4], depth, shortcut=True), Pool(w[4]))
        self.up_middle = Split(w[4] + w[3], w[3], depth, shortcut=False)
        self.up_near = Split(w[3] + w[2], w[2], depth, shortcut=False)
        self.down_middle = conv(w[2], w[2], 3, 2)
        self.out_middle = Split(w[2] + w[3], w[3], depth, shortcut=False)
        self.down_far = conv(w[3], w[3], 3, 2)
        self.out_far = Split(w[3] + w[4], w[4], depth, shortcut=False)
        self.heads = nn.ModuleList(Head(channels, classes, bins) for channels in w[2:])
        self.bins = bins
        cells, strides = _grid(size)
        self.register_buffer("cells", cells)
        self.register_buffer("strides", strides)
        self.register_buffer("steps", torch.arange(bins, dtype=torch.float32))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return [batch, 4 + classes, cells]: centre and size in pixels, then the scores."""
        near = self.near(self.stem(image))
        middle = self.middle(near)
        far = self.far(middle)
        up_middle = self.up_middle(torch.cat([_twice(far), middle], 1))
        up_near = self.up_near(torch.cat([_twice(up_middle), near], 1))
        out_middle = self.out_middle(torch.cat([self.down_middle(up_near), up_middle], 1))
        out_far = self.out_far(torch.cat([self.down_far(out_middle), far], 1))
        found = [head(x) for head, x in zip(self.heads, (up_near, out_middle, out_far), strict=True)]
        boxes, scores = (torch.cat(parts, 2) for parts in zip(*found, strict=True))
        return torch.cat([self._decode(boxes), scores.sigmoid()], 1)

    def _decode(self, boxes: torch.Tensor) -> torch.Tensor:
        """Turn distributions of the distances to the four sides into centre and size."""
        batch, _, cells = boxes.shape
        shares = boxes.view(batch, 4, self.bins, cells).softmax(2)
        distances = (shares * self.steps[:, None]).sum(2)
        low, high = self.cells - distances[:, :2], self.cells + distances[:, 2:]
        return torch.cat([(low + high) / 2, high - low], 1) * self.strides


def _twice(x: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


def _grid(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the centres of all cells, [2, cells], and the pixels that a cell is wide, [1, cells]."""
    cells, strides = [], []
    for stride in (8, 16, 32):
        places = torch.arange(size // stride) + 0.5
        rows, columns = torch.meshgrid(places, places, indexing="ij")
        cells.append(torch.stack([columns, rows]).flatten(1))
        strides.append(torch.full((1, cells[-1].shape[1]), float(stride)))
    return torch.cat(cells, 1), torch.cat(strides, 1)
