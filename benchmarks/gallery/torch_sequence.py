"""Attention, recurrence, sound and recommendation in plain PyTorch, each after the paper that its docstring names."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.gallery.settle import Pair, settled

Past = list[tuple[torch.Tensor, torch.Tensor]]


def _normal(*sizes: int) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(1))


def _ids(high: int, *sizes: int) -> torch.Tensor:
    return torch.randint(0, high, sizes, generator=torch.Generator().manual_seed(1))


class VisionTransformer(nn.Module):
    """Patches as tokens, PyTorch's own encoder layers, a class token (Dosovitskiy et al. 2021)."""

    def __init__(self, width: int = 64, depth: int = 3, size: int = 64, patch: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, (size // patch) ** 2 + 1, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, 100)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return [batch, 100]."""
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        scores: torch.Tensor = self.head(self.encoder(x)[:, 0])
        return scores


def vision_transformer() -> Pair:
    """Return a ViT of three layers."""
    return settled(VisionTransformer(), {"image": _normal(2, 3, 64, 64)})


class Mixer(nn.Module):
    """Layers that mix patches, then channels, without attention (Tolstikhin et al. 2021)."""

    def __init__(self, width: int = 48, depth: int = 3, tokens: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth))
        self.mixers = nn.ModuleList(
            nn.Sequential(nn.Linear(size, 2 * size), nn.GELU(), nn.Linear(2 * size, size))
            for _ in range(depth)
            for size in (tokens, width)
        )
        self.head = nn.Linear(width, 100)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return [batch, 100]."""
        x = self.patches(image).flatten(2).transpose(1, 2)
        for at, (norm, mixer) in enumerate(zip(self.norms, self.mixers, strict=True)):
            y = norm(x)
            x = x + (mixer(y) if at % 2 else mixer(y.transpose(1, 2)).transpose(1, 2))
        scores: torch.Tensor = self.head(x.mean(1))
        return scores


def mixer() -> Pair:
    """Return an MLP-Mixer of three layers."""
    return settled(Mixer(), {"image": _normal(2, 3, 64, 64)})


class LstmTagger(nn.Module):
    """Two layers in both directions over embedded words, a score for each tag of each word (Huang et al. 2015)."""

    def __init__(self, words: int = 500, width: int = 32, tags: int = 9) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.lstm = nn.LSTM(width, width, num_layers=2, bidirectional=True, batch_first=True)
        self.tags = nn.Linear(2 * width, tags)

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scores, [batch, length, tags], and the last hidden states, [4, batch, width]."""
        states, (hidden, _) = self.lstm(self.words(ids))
        return self.tags(states), hidden


def lstm() -> Pair:
    """Return a bidirectional LSTM; batch and length may vary."""
    return settled(LstmTagger(), {"ids": _ids(500, 2, 12)})


class GruStep(nn.Module):
    """One step of a recurrent network that carries its state as an input and an output (Cho et al. 2014)."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.cells = nn.ModuleList([nn.GRUCell(16, width), nn.GRUCell(width, width)])
        self.head = nn.Linear(width, 16)

    def forward(self, x: torch.Tensor, states: list[torch.Tensor]) -> dict[str, Any]:
        """Return ``y``, [batch, 16], and ``states``, two of [batch, width]."""
        after = []
        for cell, state in zip(self.cells, states, strict=True):
            x = cell(x, state)
            after.append(x)
        return {"y": self.head(x), "states": after}


def gru_step() -> Pair:
    """Return two GRU cells with nested state."""
    return settled_nested(GruStep(), {"x": _normal(2, 16), "states": [_normal(2, 48), _normal(2, 48)]})


def settled_nested(module: nn.Module, example: dict[str, Any]) -> Pair:
    """Settle a module without batch normalisation, whose inputs may be nested."""
    return settled(module, {})[0], example


class DecoderStep(nn.Module):
    """One step of a causal transformer: new tokens and the keys and values of those before (Vaswani et al. 2017)."""

    def __init__(self, words: int = 300, width: int = 64, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.words = nn.Embedding(words, width)
        self.queries = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(depth))
        self.joined = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.feed = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
            for _ in range(depth)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.head = nn.Linear(width, words)

    def forward(self, ids: torch.Tensor, past: Past) -> dict[str, Any]:
        """Return ``logits``, [batch, new, words], and ``past``, grown by the new tokens."""
        x, grown = self.words(ids), []
        batch, new = ids.shape
        for norm, queries, joined, feed, (keys, values) in zip(
            self.norms, self.queries, self.joined, self.feed, past, strict=True
        ):
            q, k, v = (
                part.view(batch, new, self.heads, -1).transpose(1, 2) for part in queries(norm(x)).chunk(3, dim=-1)
            )
            k, v = torch.cat([keys, k], 2), torch.cat([values, v], 2)
            grown.append((k, v))
            seen = torch.ones(new, k.shape[2], dtype=torch.bool).tril(k.shape[2] - new)
            y = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
            x = x + joined(y.transpose(1, 2).flatten(2))
            x = x + feed(x)
        return {"logits": self.head(x), "past": grown}


def decoder_step() -> Pair:
    """Return a decoder of two layers with a nested cache; batch, new tokens and the cache's length may vary."""
    past = [(_normal(2, 4, 7, 16), _normal(2, 4, 7, 16)) for _ in range(2)]
    return settled_nested(DecoderStep(), {"ids": _ids(300, 2, 3), "past": past})


class Seq2Seq(nn.Module):
    """PyTorch's own encoder and decoder with cross attention (Vaswani et al. 2017)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Transformer(width, 4, 2, 2, 64, batch_first=True)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return [batch, length of the target, width]."""
        mask = torch.ones(target.shape[1], target.shape[1], dtype=torch.bool).triu(1)
        found: torch.Tensor = self.body(source, target, tgt_mask=mask)
        return found


def seq2seq() -> Pair:
    """Return nn.Transformer; batch and both lengths may vary."""
    return settled(Seq2Seq(), {"source": _normal(2, 9, 32), "target": _normal(2, 5, 32)})


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
    return settled(Dlrm(), {"dense": _normal(2, 13), "categories": _ids(20, 2, 4)})


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
    return settled(NeuralCollaborativeFilter(), {"user": _ids(400, 2), "item": _ids(600, 2)})


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
    return settled(DeepFm(), {"ids": _ids(300, 4, 6), "values": _normal(4, 6)})


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
    return settled(WaveNet(), {"wave": _normal(2, 1, 400)})


class KeywordSpotter(nn.Module):
    """A spectrogram by PyTorch's own STFT, then convolutions (Sainath and Parada 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(128))
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.BatchNorm2d(32), nn.ReLU()
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
    return settled(KeywordSpotter(), {"wave": _normal(2, 2000)})


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
    return settled(PointNet(), {"cloud": _normal(2, 3, 50)})


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
    return settled(GraphConvolution(), {"features": _normal(10, 8), "edges": _ids(10, 2, 24)})
