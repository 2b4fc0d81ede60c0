"""Convolutional networks in plain PyTorch, each after the paper that its docstring names."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from benchmarks.gallery.settle import Pair, settled


def _images(size: int, batch: int = 2) -> dict[str, torch.Tensor]:
    return {"image": torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))}


def _conv(inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1, act: str = "relu") -> nn.Module:
    acts = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hardswish": nn.Hardswish, "silu": nn.SiLU, "none": nn.Identity}
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        acts[act](),
    )


def resnet50() -> Pair:
    """Return the full ResNet-50 of the other benchmarks, with its own settled statistics."""
    from benchmarks.models.resnet50 import resnet50 as make  # noqa: PLC0415 - only where it is asked for

    return make()


class InvertedResidual(nn.Module):
    """Expand, filter by channel, squeeze and excite where asked, project (Sandler et al. 2018; Howard et al. 2019)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int, act: str, *, excite: bool) -> None:
        super().__init__()
        inner = inputs * expand
        self.expand = _conv(inputs, inner, 1, act=act) if expand > 1 else nn.Identity()
        self.filter = _conv(inner, inner, 3, stride, groups=inner, act=act)
        self.gate = (
            nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Conv2d(inner, inner // 4, 1), nn.ReLU(), nn.Conv2d(inner // 4, inner, 1),
                nn.Hardsigmoid(),
            )
            if excite
            else None
        )  # fmt: skip
        self.project = _conv(inner, outputs, 1, act="none")
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [batch, outputs, height / stride, width / stride]."""
        y = self.filter(self.expand(x))
        if self.gate is not None:
            y = y * self.gate(y)
        y = self.project(y)
        return x + y if self.shortcut else y


class MobileNet(nn.Module):
    """A stem, rows of inverted residuals (expansion, channels, blocks, stride), and a classifier."""

    def __init__(self, rows: tuple[tuple[int, int, int, int], ...], act: str, *, excite: bool) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_conv(3, 32, 3, 2, act=act)]
        channels = 32
        for expand, outputs, count, stride in rows:
            for block in range(count):
                blocks.append(
                    InvertedResidual(channels, outputs, 1 if block else stride, expand, act, excite=excite)
                )
                channels = outputs
        self.features = nn.Sequential(*blocks, _conv(channels, 1280, 1, act=act))
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return [batch, 1000]."""
        scores: torch.Tensor = self.classifier(self.features(image).mean((2, 3)))
        return scores


_MOBILENET_V2 = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


def mobilenet_v2() -> Pair:
    """Return MobileNetV2 at its full size (Sandler et al. 2018, table 2)."""
    return settled(MobileNet(_MOBILENET_V2, "relu6", excite=False), _images(96))


def mobilenet_v3() -> Pair:
    """Return a MobileNetV3: hard swish, squeeze and excitation (Howard et al. 2019)."""
    rows = ((1, 16, 1, 2), (4, 24, 2, 2), (4, 40, 2, 2), (6, 96, 2, 2))
    return settled(MobileNet(rows, "hardswish", excite=True), _images(96))


class DenseNet(nn.Module):
    """Layers that see all layers before them (Huang et al. 2017)."""

    def __init__(self, growth: int = 12, blocks: tuple[int, ...] = (4, 6, 4)) -> None:
        super().__init__()
        channels = 2 * growth
        self.stem = nn.Conv2d(3, channels, 3, 2, padding=1)
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        for count in blocks:
            layers = nn.ModuleList()
            for _ in range(count):
                layers.append(
                    nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, growth, 3, padding=1))
                )
                channels += growth
            self.blocks.append(layers)
            self.transitions.append(
                nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels // 2, 1), nn.AvgPool2d(2))
            )
            channels //= 2
        self.classifier = nn.Linear(channels, 100)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return [batch, 100]."""
        x = self.stem(image)
        for layers, transition in zip(self.blocks, self.transitions, strict=True):
            for layer in layers:
                x = torch.cat([x, layer(x)], 1)
            x = transition(x)
        scores: torch.Tensor = self.classifier(x.mean((2, 3)))
        return scores


def densenet() -> Pair:
    """Return a small DenseNet."""
    return settled(DenseNet(), _images(64))


class ShuffleUnit(nn.Module):
    """Half of the channels are filtered, then all are shuffled (Ma et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            _conv(half, half, 1), _conv(half, half, 3, groups=half, act="none"), _conv(half, half, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the shape that comes in."""
        left, right = x.chunk(2, dim=1)
        x = torch.cat([left, self.branch(right)], 1)
        batch, channels, height, width = x.shape
        return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)


def shufflenet() -> Pair:
    """Return a ShuffleNetV2 with six units."""
    units = [ShuffleUnit(48) for _ in range(3)] + [_conv(48, 96, 3, 2)] + [ShuffleUnit(96) for _ in range(3)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 100)]
    return settled(Images(nn.Sequential(_conv(3, 48, 3, 4), *units, *head)), _images(64))


class Images(nn.Module):
    """A body that is called with an input named ``image``."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return what the body does."""
        found: torch.Tensor = self.body(image)
        return found


def vgg() -> Pair:
    """Return a VGG of eleven layers, a quarter as wide (Simonyan and Zisserman 2015)."""
    layers: list[nn.Module] = []
    channels = 3
    for outputs in (16, 0, 32, 0, 64, 64, 0, 128, 128, 0, 128, 128, 0):
        if not outputs:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.ReLU()]
        channels = outputs
    head = [nn.Flatten(), nn.Linear(128 * 9, 256), nn.ReLU(), nn.Dropout(), nn.Linear(256, 100)]
    return settled(Images(nn.Sequential(*layers, *head)), _images(96))


class UNet(nn.Module):
    """Down and up again, with what was seen on the way down (Ronneberger et al. 2015)."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64), classes: int = 5) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            nn.Sequential(_conv(before, width), _conv(width, width))
            for before, width in zip((3, *widths), widths, strict=False)
        )
        pairs = list(zip(reversed(widths[1:]), reversed(widths[:-1]), strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(wide, narrow, 2, 2) for wide, narrow in pairs)
        self.merge = nn.ModuleList(_conv(2 * narrow, narrow) for _, narrow in pairs)
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
    return settled(UNet(), _images(64))


class DeepLab(nn.Module):
    """Atrous convolutions of several rates and a pooled branch, resized to the picture (Chen et al. 2018)."""

    def __init__(self, width: int = 32, classes: int = 7) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, width, 3, 2), _conv(width, width, 3, 2))
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
    return settled(DeepLab(), _images(64))


def super_resolution() -> Pair:
    """Return ESPCN, which makes a picture three times as large (Shi et al. 2016); height and width may vary."""
    body = nn.Sequential(
        nn.Conv2d(3, 32, 5, padding=2), nn.Tanh(), nn.Conv2d(32, 32, 3, padding=1), nn.Tanh(),
        nn.Conv2d(32, 27, 3, padding=1), nn.PixelShuffle(3),
    )  # fmt: skip
    return settled(Images(body), _images(24))


class CenterNet(nn.Module):
    """Objects as the peaks of a heat map (Zhou et al. 2019): as many rows come out as there are peaks."""

    def __init__(self, width: int = 32, classes: int = 4, most: int = 40) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(3, width, 3, 2), _conv(width, width, 3, 2), _conv(width, width))
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
        rows = (scores > 0.6).nonzero()
        return {"boxes": boxes[rows[:, 0], rows[:, 1]], "scores": scores[rows[:, 0], rows[:, 1]], "rows": rows}


def centernet() -> Pair:
    """Return a small CenterNet."""
    return settled(CenterNet(), _images(64))


class Yolo(nn.Module):
    """Boxes from anchors on two grids, decoded to pixels (Redmon and Farhadi 2018)."""

    def __init__(self, width: int = 32, classes: int = 6) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, width, 3, 2, act="silu"), _conv(width, width, 3, 4, act="silu"))
        self.deeper = _conv(width, 2 * width, 3, 2, act="silu")
        self.lateral = _conv(2 * width, width, 1, act="silu")
        self.heads = nn.ModuleList(nn.Conv2d(inputs, 3 * (5 + classes), 1) for inputs in (2 * width, 2 * width))
        self.register_buffer("anchors", torch.tensor([[[8.0, 10.0], [16, 20], [30, 24]], [[40, 50], [70, 60], [90, 90]]]))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return [batch, boxes, 5 + classes]: centre, size, objectness, scores of the classes."""
        near = self.stem(image)
        far = self.deeper(near)
        up = functional.interpolate(self.lateral(far), scale_factor=2.0, mode="nearest")
        levels = (torch.cat([near, up], 1), far)
        return torch.cat([self._decode(head(x), anchors, 8 * 2**at)
                          for at, (head, x, anchors) in enumerate(zip(self.heads, levels, self.anchors, strict=True))], 1)  # fmt: skip

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
    return settled(Yolo(), _images(64))
