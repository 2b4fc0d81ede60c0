"""Networks that answer with a picture or with objects, in plain PyTorch; each docstring names its paper."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from benchmarks.gallery.settle import Pair, settled
from benchmarks.gallery.torch_cnn import Images, conv, images


class UNet(nn.Module):
    """Down and up again, with what was seen on the way down (Ronneberger et al. 2015)."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64), classes: int = 5) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            nn.Sequential(conv(before, width), conv(width, width))
            for before, width in zip((3, *widths), widths, strict=False)
        )
        pairs = list(zip(reversed(widths[1:]), reversed(widths[:-1]), strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(wide, narrow, 2, 2) for wide, narrow in pairs)
        self.merge = nn.ModuleList(conv(2 * narrow, narrow) for _, narrow in pairs)
        self.classifier = nn.Conv2d(widths[0], classes, 1)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return ``scores``, [batch, classes, height, width], and ``labels``, their largest."""
        seen, x = [], image
        for at, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if at else x)
            seen.append(x)
        for up, merge, skip in zip(self.up, self.merge, reversed(seen[:-1]), strict=True):
            x = merge(torch.cat([up(x), skip], 1))
        scores = self.classifier(x)
        return {"scores": scores, "labels": scores.argmax(1)}


def unet() -> Pair:
    """Return a U-Net of three levels; height and width may vary."""
    return settled(UNet(), images(64))


class DeepLab(nn.Module):
    """Atrous convolutions of several rates and a pooled branch, resized to the picture (Chen et al. 2018)."""

    def __init__(self, width: int = 32, classes: int = 7) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, width, 3, 2), conv(width, width, 3, 2))
        self.rates = nn.ModuleList(nn.Conv2d(width, width, 3, padding=rate, dilation=rate) for rate in (1, 2, 4))
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width, 1), nn.ReLU())
        self.classifier = nn.Conv2d(4 * width, classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return [batch, classes, height, width]."""
        x = self.stem(image)
        size = x.shape[-2:]
        branches = [rate(x) for rate in self.rates]
        branches.append(functional.interpolate(self.pooled(x), size=size, mode="nearest"))
        scores = self.classifier(functional.relu(torch.cat(branches, 1)))
        return functional.interpolate(scores, size=image.shape[-2:], mode="bilinear", align_corners=False)


def deeplab() -> Pair:
    """Return a DeepLab head on a small stem; height and width may vary."""
    return settled(DeepLab(), images(64))


def super_resolution() -> Pair:
    """Return ESPCN, which makes a picture three times as large (Shi et al. 2016); height and width may vary."""
    body = nn.Sequential(
        nn.Conv2d(3, 32, 5, padding=2), nn.Tanh(), nn.Conv2d(32, 32, 3, padding=1), nn.Tanh(),
        nn.Conv2d(32, 27, 3, padding=1), nn.PixelShuffle(3),
    )  # fmt: skip
    return settled(Images(body), images(24))


class CenterNet(nn.Module):
    """Objects as the peaks of a heat map (Zhou et al. 2019): as many rows come out as there are peaks."""

    def __init__(self, width: int = 32, classes: int = 4, most: int = 40) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, width, 3, 2), conv(width, width, 3, 2), conv(width, width))
        self.heat, self.size = nn.Conv2d(width, classes, 1), nn.Conv2d(width, 2, 1)
        self.most = most

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return ``boxes``, [objects, 4], ``scores``, [objects], and ``rows``, [objects, 2]: picture and rank."""
        x = self.body(image)
        heat = self.heat(x).sigmoid()
        peaks = heat * (functional.max_pool2d(heat, 3, 1, 1) == heat)
        scores, places = peaks.flatten(1).topk(self.most, dim=1)
        height, width = heat.shape[-2:]
        at = places % (height * width)
        centre = torch.stack([at % width, at // width], -1).float()
        sizes = self.size(x).flatten(2).transpose(1, 2).gather(1, at[..., None].expand(-1, -1, 2)).exp()
        boxes = torch.cat([centre - sizes / 2, centre + sizes / 2], -1)
        rows = (scores > 0.77).nonzero()
        return {"boxes": boxes[rows[:, 0], rows[:, 1]], "scores": scores[rows[:, 0], rows[:, 1]], "rows": rows}


def centernet() -> Pair:
    """Return a small CenterNet."""
    return settled(CenterNet(), images(64))


class Yolo(nn.Module):
    """Boxes from anchors on two grids, decoded to pixels (Redmon and Farhadi 2018)."""

    def __init__(self, width: int = 32, classes: int = 6) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, width, 3, 2, act="silu"), conv(width, width, 3, 4, act="silu"))
        self.deeper = conv(width, 2 * width, 3, 2, act="silu")
        self.lateral = conv(2 * width, width, 1, act="silu")
        self.heads = nn.ModuleList(nn.Conv2d(inputs, 3 * (5 + classes), 1) for inputs in (2 * width, 2 * width))
        self.register_buffer(
            "anchors", torch.tensor([[[8.0, 10.0], [16, 20], [30, 24]], [[40, 50], [70, 60], [90, 90]]])
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return [batch, boxes, 5 + classes]: centre, size, objectness, scores of the classes."""
        near = self.stem(image)
        far = self.deeper(near)
        up = functional.interpolate(self.lateral(far), scale_factor=2.0, mode="nearest")
        levels = (torch.cat([near, up], 1), far)
        rows = []
        for at, (head, x, anchors) in enumerate(zip(self.heads, levels, self.anchors, strict=True)):
            rows.append(self._decode(head(x), anchors, 8 * 2**at))
        return torch.cat(rows, 1)

    @staticmethod
    def _decode(found: torch.Tensor, anchors: torch.Tensor, stride: int) -> torch.Tensor:
        batch, _, height, width = found.shape
        found = found.view(batch, 3, -1, height, width).permute(0, 1, 3, 4, 2)
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        cells = torch.stack([columns, rows], -1).to(found.dtype)
        centre = (found[..., :2].sigmoid() + cells) * stride
        size = found[..., 2:4].tanh().exp() * anchors[:, None, None]
        return torch.cat([centre, size, found[..., 4:].sigmoid()], -1).flatten(1, 3)


def yolo() -> Pair:
    """Return a detector with two grids; height and width may vary."""
    return settled(Yolo(), images(64))
