"""The seven models with random weights, at their full size, or tiny ones of the same structure for a trial here.

Every model has weights of unit gain and settled batch statistics, so that no activation vanishes or explodes and
rounding does not grow from layer to layer: half precision in PyTorch itself stays within 0.002 on each of them, while
the outputs of two inputs differ by a twentieth or more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from torch import nn

from benchmarks.gallery.settle import settled

__all__ = ["MODELS", "Model", "Net", "feeds_of", "leave_out_masks", "make"]

Net = tuple[nn.Module, dict[str, torch.Tensor]]
"""A module and example inputs of batch 2 or 1."""

_TINY: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


@dataclass(frozen=True)
class Model:
    """One of the seven.

    Args:
        label: its usual name.
        make: returns the module and its example inputs; takes whether it shall be tiny.
        convolutional: whether it is made of convolutions, and so is built in INT8 and runs channels last in PyTorch.
    """

    label: str
    make: Callable[[bool], Net]
    convolutional: bool


def make(name: str, *, tiny: bool) -> Net:
    """Return a module, in evaluation mode, and its example inputs; the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module, example = MODELS[name].make(tiny)
    return module.eval(), example


def feeds_of(example: Mapping[str, torch.Tensor], batch: int, seed: int) -> dict[str, torch.Tensor]:
    """Return inputs like the example for a batch: normal pictures, tokens up to the largest seen, all of them valid."""
    generator = torch.Generator().manual_seed(seed)
    feeds = {}
    for name, value in example.items():
        shape = (batch, *value.shape[1:])
        if value.is_floating_point():
            feeds[name] = torch.randn(shape, generator=generator)
        elif "mask" in name:
            feeds[name] = torch.ones(shape, dtype=value.dtype)
        else:
            feeds[name] = torch.randint(0, int(value.max()) + 1, shape, generator=generator, dtype=value.dtype)
    return feeds


def leave_out_masks() -> None:
    """Let a ViT attend without the mask that `transformers` makes wherever a call is captured or compiled.

    It masks nothing, and keeps PyTorch from its fastest attention (35.6 ms in place of 12.5 at batch 128 on an H200).
    """
    from transformers.models.vit import modeling_vit  # noqa: PLC0415 - only where it is asked for

    modeling_vit.create_bidirectional_mask = lambda **_: None


class Pictured(nn.Module):
    """A model of pictures from ``transformers``, its scores alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return [batch, classes] for [batch, 3, height, width]."""
        found: torch.Tensor = self.model(pixel_values=image).logits
        return found


class Read(nn.Module):
    """A text encoder from ``transformers``: its last hidden states, or their mean over the tokens, normalised."""

    def __init__(self, model: nn.Module, *, mean: bool) -> None:
        super().__init__()
        self.model = model
        self.mean = mean

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return [batch, length, width], or [batch, width]; both inputs are int64 [batch, length]."""
        states: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        if not self.mean:
            return states
        weights = attention_mask[..., None].to(states.dtype)
        mean = (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(mean, dim=1)


def _image(size: int) -> dict[str, torch.Tensor]:
    return {"image": torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))}


def _tokens(length: int, vocabulary: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(0, vocabulary, (2, length), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _resnet50(tiny: bool) -> Net:  # noqa: FBT001 - as the table calls it
    from benchmarks.models.resnet50 import Bottleneck, ResNet  # noqa: PLC0415 - only where it is asked for

    model = ResNet((1, 1, 1, 1), 8, 10) if tiny else ResNet()
    for part in model.modules():
        if isinstance(part, Bottleneck):
            nn.init.constant_(part.expand[1].weight, 0.1)  # a small step on the shortcut, as training makes it
    return settled(model, _image(32 if tiny else 224))


def _mobilenet(tiny: bool) -> Net:  # noqa: FBT001
    from benchmarks.h200.mobilenet import LARGE, MobileNetV3  # noqa: PLC0415

    model = MobileNetV3(LARGE[:5] if tiny else LARGE)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.bias)  # as after training, few activations lie where the hard swish cuts them off
    return settled(model, _image(32 if tiny else 224))


def _convnext(tiny: bool) -> Net:  # noqa: FBT001
    small: dict[str, Any] = {"hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 1, 1]} if tiny else {}
    model = hf.ConvNextForImageClassification(hf.ConvNextConfig(num_labels=1000, **small))
    return settled(Pictured(model), _image(64 if tiny else 224))


def _detector(tiny: bool) -> Net:  # noqa: FBT001
    from benchmarks.h200.detector import Detector  # noqa: PLC0415

    model = Detector(64, width=8, classes=4) if tiny else Detector()
    return settled(model, _image(64 if tiny else 640))


def _vit(tiny: bool) -> Net:  # noqa: FBT001
    small = {**_TINY, "image_size": 32} if tiny else {}
    model = hf.ViTForImageClassification(hf.ViTConfig(num_labels=1000, attn_implementation="sdpa", **small))
    return settled(Pictured(model), _image(32 if tiny else 224))


def _bert(tiny: bool) -> Net:  # noqa: FBT001
    config = hf.BertConfig(attn_implementation="sdpa", **(_TINY if tiny else {}))
    model = hf.BertModel(config, add_pooling_layer=False)
    return settled(Read(model, mean=False), _tokens(16 if tiny else 128, config.vocab_size))


def _minilm(tiny: bool) -> Net:  # noqa: FBT001
    own = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    config = hf.BertConfig(attn_implementation="sdpa", **(_TINY if tiny else own))
    model = hf.BertModel(config, add_pooling_layer=False)
    return settled(Read(model, mean=True), _tokens(16 if tiny else 128, config.vocab_size))


MODELS: Mapping[str, Model] = {
    "resnet50": Model("ResNet-50", _resnet50, convolutional=True),
    "vit": Model("ViT-B/16", _vit, convolutional=False),
    "bert": Model("BERT-base, 128 tokens", _bert, convolutional=False),
    "mobilenet": Model("MobileNetV3-Large", _mobilenet, convolutional=True),
    "convnext": Model("ConvNeXt-T", _convnext, convolutional=True),
    "detector": Model("detector in YOLO's shape, 640x640", _detector, convolutional=True),
    "minilm": Model("MiniLM, 128 tokens", _minilm, convolutional=False),
}
"""By short name, in the order of the tables."""
