"""Attention and recurrence in plain PyTorch, each after the paper that its docstring names."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.gallery.settle import Pair, settled

Past = list[tuple[torch.Tensor, torch.Tensor]]


def normal(*sizes: int) -> torch.Tensor:
    """Return normal floats, the same each time."""
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(1))


def ids_below(high: int, *sizes: int) -> torch.Tensor:
    """Return indices below `high`, int64, the same each time."""
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
    return settled(VisionTransformer(), {"image": normal(2, 3, 64, 64)})


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
    return settled(Mixer(), {"image": normal(2, 3, 64, 64)})


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
    return settled(LstmTagger(), {"ids": ids_below(500, 2, 12)})


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
    return settled_nested(GruStep(), {"x": normal(2, 16), "states": [normal(2, 48), normal(2, 48)]})


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
    past = [(normal(2, 4, 7, 16), normal(2, 4, 7, 16)) for _ in range(2)]
    return settled_nested(DecoderStep(), {"ids": ids_below(300, 2, 3), "past": past})


class Seq2Seq(nn.Module):
    """PyTorch's own encoder and decoder with cross attention (Vaswani et al. 2017)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Transformer(width, 4, 2, 2, 64, batch_first=True)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return [batch, length of the target, width]."""
        mask = torch.ones(target.shape[1], target.shape[1], dtype=torch.bool).triu(1)
        found: torch.Tensor = self.body(source, target, tgt_mask=mask, tgt_is_causal=True)
        return found


def seq2seq() -> Pair:
    """Return nn.Transformer; batch and both lengths may vary."""
    return settled(Seq2Seq(), {"source": normal(2, 9, 32), "target": normal(2, 5, 32)})
