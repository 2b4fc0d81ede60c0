"""Convolutional networks in plain PyTorch, each after the paper that its docstring names."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.gallery.settle import Pair, settled


def images(size: int, batch: int = 2) -> dict[str, torch.Tensor]:
    """Return random square pictures, float32 [batch, 3, size, size], as ``image``."""
    return {"image": torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))}


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1, *, groups: int = 1, act: str = "relu") -> nn.Module:
    """Return a convolution without bias, batch normalisation and an activation."""
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
        self.expand = conv(inputs, inner, 1, act=act) if expand > 1 else nn.Identity()
        self.filter = conv(inner, inner, 3, stride, groups=inner, act=act)
        self.gate = (
            nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Conv2d(inner, inner // 4, 1), nn.ReLU(), nn.Conv2d(inner // 4, inner, 1),
                nn.Hardsigmoid(),
            )
            if excite
            else None
        )  # fmt: skip
        self.project = conv(inner, outputs, 1, act="none")
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
        blocks: list[nn.Module] = [conv(3, 32, 3, 2, act=act)]
        channels = 32
        for expand, outputs, count, stride in rows:
            for block in range(count):
                blocks.append(InvertedResidual(channels, outputs, 1 if block else stride, expand, act, excite=excite))
                channels = outputs
        self.features = nn.Sequential(*blocks, conv(channels, 1280, 1, act=act))
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
    return settled(MobileNet(_MOBILENET_V2, "relu6", excite=False), images(96))


def mobilenet_v3() -> Pair:
    """Return a MobileNetV3: hard swish, squeeze and excitation (Howard et al. 2019)."""
    rows = ((1, 16, 1, 2), (4, 24, 2, 2), (4, 40, 2, 2), (6, 96, 2, 2))
    return settled(MobileNet(rows, "hardswish", excite=True), images(96))


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
                nn.Sequential(
                    nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels // 2, 1), nn.AvgPool2d(2)
                )
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
    return settled(DenseNet(), images(64))


class ShuffleUnit(nn.Module):
    """Half of the channels are filtered, then all are shuffled (Ma et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv(half, half, 1), conv(half, half, 3, groups=half, act="none"), conv(half, half, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the shape that comes in."""
        left, right = x.chunk(2, dim=1)
        x = torch.cat([left, self.branch(right)], 1)
        batch, channels, height, width = x.shape
        return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)


def shufflenet() -> Pair:
    """Return a ShuffleNetV2 with six units."""
    units = [ShuffleUnit(48) for _ in range(3)] + [conv(48, 96, 3, 2)] + [ShuffleUnit(96) for _ in range(3)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 100)]
    return settled(Images(nn.Sequential(conv(3, 48, 3, 4), *units, *head)), images(64))


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
    return settled(Images(nn.Sequential(*layers, *head)), images(96))
