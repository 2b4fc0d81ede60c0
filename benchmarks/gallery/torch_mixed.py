"""Sound, recommendation, points and graphs in plain PyTorch, each after the paper that its docstring names."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from benchmarks.gallery.settle import Pair, settled
from benchmarks.gallery.torch_sequence import ids_below, normal


class Dlrm(nn.Module):
    """Embedded categories and dense features, multiplied pair by pair (Naumov et al. 2019)."""

    def __init__(self, sizes: tuple[int, ...] = (100, 50, 1000, 20), width: int = 16) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size in sizes)
        self.bottom = nn.Sequential(nn.Linear(13, 64), nn.ReLU(), nn.Linear(64, width), nn.ReLU())
        pairs = (len(sizes) + 1) * len(sizes) // 2
        self.top = nn.Sequential(nn.Linear(pairs + width, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, dense: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        """Return the chance of a click, [batch]."""
        x = self.bottom(dense)
        parts = torch.stack([x, *(table(categories[:, at]) for at, table in enumerate(self.tables))], 1)
        products = torch.bmm(parts, parts.transpose(1, 2))
        row, column = torch.tril_indices(parts.shape[1], parts.shape[1], offset=-1)
        chance: torch.Tensor = self.top(torch.cat([x, products[:, row, column]], 1)).sigmoid().squeeze(-1)
        return chance


def dlrm() -> Pair:
    """Return a small DLRM with four tables."""
    return settled(Dlrm(), {"dense": normal(2, 13), "categories": ids_below(20, 2, 4)})


class NeuralCollaborativeFilter(nn.Module):
    """A product of two embeddings beside a network over both (He et al. 2017)."""

    def __init__(self, users: int = 400, items: int = 600, width: int = 16) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(users, 2 * width), nn.Embedding(items, 2 * width)
        self.deep = nn.Sequential(nn.Linear(2 * width, 32), nn.ReLU(), nn.Linear(32, width))
        self.head = nn.Linear(2 * width, 1)

    def forward(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        """Return a score for each pair, [batch]."""
        wide_user, deep_user = self.users(user).chunk(2, -1)
        wide_item, deep_item = self.items(item).chunk(2, -1)
        deep = self.deep(torch.cat([deep_user, deep_item], -1))
        score: torch.Tensor = self.head(torch.cat([wide_user * wide_item, deep], -1)).squeeze(-1)
        return score


def ncf() -> Pair:
    """Return a neural collaborative filter."""
    return settled(NeuralCollaborativeFilter(), {"user": ids_below(400, 2), "item": ids_below(600, 2)})


class DeepFm(nn.Module):
    """Factorisation machine and deep network over bags of features with weights (Guo et al. 2017)."""

    def __init__(self, features: int = 300, fields: int = 6, width: int = 8) -> None:
        super().__init__()
        self.linear, self.factors = nn.Embedding(features, 1), nn.Embedding(features, width)
        self.deep = nn.Sequential(nn.Linear(fields * width, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, ids: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Return the chance of a click, [batch]."""
        factors = self.factors(ids) * values[..., None]
        pairs = 0.5 * (factors.sum(1).square() - factors.square().sum(1)).sum(-1)
        first = (self.linear(ids).squeeze(-1) * values).sum(1)
        return torch.sigmoid(0.1 * (first + pairs) + self.deep(factors.flatten(1)).squeeze(-1))


def deepfm() -> Pair:
    """Return a DeepFM with six fields."""
    return settled(DeepFm(), {"ids": ids_below(300, 4, 6), "values": normal(4, 6)})


class WaveNet(nn.Module):
    """Gated, causal, dilated convolutions over a waveform (van den Oord et al. 2016)."""

    def __init__(self, width: int = 16, depth: int = 6) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, width, 1)
        self.gates = nn.ModuleList(nn.Conv1d(width, 2 * width, 2, dilation=2**at) for at in range(depth))
        self.mixes = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(depth))
        self.last = nn.Conv1d(width, 32, 1)

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        """Return [batch, 32, samples]."""
        x = self.first(wave)
        total = torch.zeros_like(x)
        for gate, mix in zip(self.gates, self.mixes, strict=True):
            a, b = gate(functional.pad(x, (gate.dilation[0], 0))).chunk(2, 1)
            y = mix(a.tanh() * b.sigmoid())
            x, total = x + y, total + y
        found: torch.Tensor = self.last(total.relu())
        return found


def wavenet() -> Pair:
    """Return a WaveNet of six layers; batch and samples may vary."""
    return settled(WaveNet(), {"wave": normal(2, 1, 400)})


class KeywordSpotter(nn.Module):
    """A spectrogram by PyTorch's own STFT, then convolutions (Sainath and Parada 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(128))
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2),
            nn.BatchNorm2d(32),
            nn.ReLU(),
        )
        self.words = nn.Linear(32, 12)

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        """Return a score for each of twelve words, [batch, 12]."""
        spectrum = torch.stft(wave, 128, 64, window=self.window, center=False, return_complex=True)
        power = torch.view_as_real(spectrum).square().sum(-1)
        scores: torch.Tensor = self.words(self.body(power.add(1e-3).log().unsqueeze(1)).mean((2, 3)))
        return scores


def keyword_spotter() -> Pair:
    """Return a keyword spotter that begins with an STFT."""
    return settled(KeywordSpotter(), {"wave": normal(2, 2000)})


class PointNet(nn.Module):
    """The same layers for each point, then the largest of all (Qi et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.points = nn.Sequential(nn.Conv1d(3, 32, 1), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, 128, 1))
        self.head = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, cloud: torch.Tensor) -> torch.Tensor:
        """Return [batch, 10] for a cloud of [batch, 3, points]."""
        scores: torch.Tensor = self.head(self.points(cloud).amax(-1))
        return scores


def pointnet() -> Pair:
    """Return a PointNet; batch and number of points may vary."""
    return settled(PointNet(), {"cloud": normal(2, 3, 50)})


class GraphConvolution(nn.Module):
    """Messages along edges, gathered and added up by index (Kipf and Welling 2017)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, width), nn.Linear(width, width)])
        self.head = nn.Linear(width, 5)

    def forward(self, features: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """Return [nodes, 5]; the features are [nodes, 8], the edges [2, edges]."""
        x, (source, target) = features, edges
        for layer in self.layers:
            messages = layer(x).relu()
            x = messages + torch.zeros_like(messages).index_add(0, target, messages[source])
        scores: torch.Tensor = self.head(x)
        return scores


def graph_convolution() -> Pair:
    """Return a graph network of two layers; nodes and edges may vary."""
    return settled(GraphConvolution(), {"features": normal(10, 8), "edges": ids_below(10, 2, 24)})
