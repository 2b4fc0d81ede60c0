"""Random weights that are worth comparing: no activation vanishes or explodes, and batch statistics are settled."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["Pair", "settled"]

Pair = tuple[nn.Module, Any]
"""A module and the example inputs of one call."""

_BATCHES = 4
_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d)
_NORMALISED = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_SMALL = 1e-3


def settled(module: nn.Module, example: dict[str, Any]) -> Pair:
    """Give a module weights of unit gain and settle its batch statistics; returns it in evaluation mode.

    Parameters that begin as nothing, such as a scale of 1e-6 or positions of zero, would hide what they belong to, so
    they are drawn anew as well.

    Args:
        module: changed in place.
        example: inputs of one call by name, with a batch of at least 2.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for part in module.modules():
            _draw(part)
        if any(isinstance(part, _NORMALISED) for part in module.modules()):
            _settle(module, example)
    return module.eval(), example


def _draw(part: nn.Module) -> None:
    transformers_linear = type(part).__name__ == "Conv1D"  # GPT-2's, which keeps its weight transposed
    if isinstance(part, _WEIGHTED) or transformers_linear:
        weight = part.weight
        transposed = isinstance(part, (nn.ConvTranspose1d, nn.ConvTranspose2d)) or transformers_linear
        fan_in = weight.shape[0] if transposed else weight[0].numel()
        weight.normal_(0, fan_in**-0.5)
        if getattr(part, "bias", None) is not None:
            part.bias.normal_(0, 0.1)
        return
    for name, value in part.named_parameters(recurse=False):
        if value.is_floating_point() and name != "bias" and value.numel() and float(value.abs().max()) < _SMALL:
            value.normal_(0, 0.3)


def _settle(module: nn.Module, example: dict[str, Any]) -> None:
    """Let batch normalisation see some batches; everything else, such as dropout, stays in evaluation mode."""
    module.eval()
    for part in module.modules():
        if isinstance(part, _NORMALISED):
            part.reset_running_stats()
            part.momentum = None  # a plain mean over the batches
            part.train()
    for _ in range(_BATCHES):
        module(**{name: _more(value) for name, value in example.items()})
    module.eval()


def _more(value: torch.Tensor) -> torch.Tensor:
    """Return four times as many rows, drawn anew; integers are repeated, for only they say which are valid."""
    rows = value.repeat(4, *(1 for _ in value.shape[1:]))
    return torch.randn_like(rows) if rows.is_floating_point() else rows
