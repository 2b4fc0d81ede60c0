"""Every entry of the gallery. Nothing heavy is imported until an entry's model is made."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.gallery.entry import Entry, Made

__all__ = ["ENTRIES"]


def _torch(place: str) -> Callable[[Path], Made]:
    """Return a maker that calls ``module.function`` of this package, which gives a module and its example inputs."""

    def make(_: Path) -> Made:
        module, name = place.split(".")
        return Made(*getattr(importlib.import_module(f"benchmarks.gallery.{module}"), name)())

    return make


def _plain(family: str, place: str, shapes: Mapping[str, str], **more: Any) -> Entry:
    name = place.partition(".")[2]
    return Entry(f"torch {name}", family, "torch", _torch(place), shapes, needs=("torch",), **more)


def _hugging(family: str, name: str, shapes: Mapping[str, str], **more: Any) -> Entry:
    make = _torch(f"transformers_models.{name}")
    return Entry(f"transformers {name}", family, "transformers", make, shapes, needs=("torch", "transformers"), **more)


def _image(name: str, family: str = "cnn", sizes: str = "3x64x64") -> Entry:
    module = "torch_cnn" if family == "cnn" else "torch_dense"
    return _plain(family, f"{module}.{name}", {"image": f"batch:1..3x{sizes}"})


def _picture(name: str, family: str = "vision transformer", sizes: str = "3x64x64", **more: Any) -> Entry:
    return _hugging(family, name, {"pixel_values": f"batch:1..3x{sizes}"}, **more)


_TOKENS = {"input_ids": "0..499", "attention_mask": "1..1"}
_FREE = "3xheight:32..64xwidth:32..96"
_LENGTHS = "batch:1..3xlength:5..20"


def _text(name: str, **more: Any) -> Entry:
    shapes = {"input_ids": _LENGTHS, "attention_mask": _LENGTHS}
    return _hugging("text encoder", name, shapes, ranges=_TOKENS, **more)


def _decoder(source: Callable[..., Entry], name: str, ids: str, *, heads: int = 4, high: int = 499) -> Entry:
    past = f"batch:1..3x{heads}xcached:4..20x16"
    shapes = {ids: "batch:1..3xnew:2..5", **{f"past_{layer}_{part}": past for layer in (0, 1) for part in (0, 1)}}
    return source("text decoder", name, shapes, ranges={ids: f"0..{high}"})


_PLAIN = (
    _image("resnet50", sizes="3x224x224"),
    _image("mobilenet_v2", sizes="3x224x224"),
    _image("mobilenet_v3"),
    _image("densenet"),
    _image("shufflenet"),
    _image("vgg", sizes="3x96x96"),
    _image("unet", "segmentation", "3xheight:32..64xwidth:32..96"),
    _image("deeplab", "segmentation", _FREE),
    _image("super_resolution", "super-resolution", "3xheight:16..24xwidth:16..32"),
    _image("centernet", "detector"),
    _image("yolo", "detector", _FREE),
    _plain("vision transformer", "torch_sequence.vision_transformer", {"image": "batch:1..3x3x64x64"}),
    _plain("mlp", "torch_sequence.mixer", {"image": "batch:1..3x3x64x64"}),
    _plain("recurrent", "torch_sequence.lstm", {"ids": "batch:1..3xlength:5..20"}, ranges={"ids": "0..499"}),
    _plain(
        "recurrent",
        "torch_sequence.gru_step",
        {"x": "batch:1..3x16", "states_0": "batch:1..3x48", "states_1": "batch:1..3x48"},
    ),
    _decoder(_plain, "torch_sequence.decoder_step", "ids", high=299),
    _plain(
        "text decoder",
        "torch_sequence.seq2seq",
        {"source": "batch:1..3xsources:4..12x32", "target": "batch:1..3xtargets:3..9x32"},
    ),
    _plain(
        "recommender",
        "torch_mixed.dlrm",
        {"dense": "batch:2..16x13", "categories": "batch:2..16x4"},
        ranges={"categories": "0..19"},
    ),
    _plain(
        "recommender", "torch_mixed.ncf", {"user": "batch:2..16", "item": "batch:2..16"},
        ranges={"user": "0..399", "item": "0..599"},
    ),
    _plain(
        "recommender", "torch_mixed.deepfm", {"ids": "batch:2..16x6", "values": "batch:2..16x6"},
        ranges={"ids": "0..299"},
    ),
    _plain("audio", "torch_mixed.wavenet", {"wave": "batch:1..3x1xsamples:300..800"}),
    _plain("audio", "torch_mixed.keyword_spotter", {"wave": "batch:1..3xsamples:2000..4000"}),
    _plain("point cloud", "torch_mixed.pointnet", {"cloud": "batch:1..3x3xpoints:20..80"}),
    _plain(
        "graph network", "torch_mixed.graph_convolution", {"features": "nodes:10..20x8", "edges": "2xedges:12..60"},
        ranges={"edges": "0..9"},
    ),
)  # fmt: skip

_TRANSFORMERS = (
    _picture("vit"),
    _picture("deit"),
    _picture("beit"),
    _picture("dinov2"),
    _picture("swin"),
    _picture("swinv2"),
    _picture("convnext", "cnn"),
    _picture("convnextv2", "cnn"),
    _picture("regnet", "cnn"),
    _picture("mobilevit", sizes="3x96x96"),
    _picture("poolformer"),
    _picture("levit"),
    _picture("clip_vision"),
    _picture("siglip_vision"),
    _picture("segformer", "segmentation", "3xheight:64..96xwidth:64..128"),
    _picture("dpt", "depth"),
    _picture("yolos", "detector"),
    _picture("detr", "detector", "3x96x96"),
    _text("bert"),
    _text("bert_base"),
    _text("distilbert"),
    _text("roberta"),
    _text("electra"),
    _text("albert"),
    _text("mpnet"),
    _text("deberta"),
    _text("t5_encoder"),
    _text("clip_text"),
    _text("modernbert"),
    _decoder(_hugging, "gpt2", "input_ids"),
    _decoder(_hugging, "opt", "input_ids"),
    _decoder(_hugging, "llama", "input_ids", heads=2),
    _decoder(_hugging, "qwen2", "input_ids", heads=2),
    _decoder(_hugging, "mistral", "input_ids", heads=2),
    _decoder(_hugging, "gpt_neox", "input_ids"),
    _hugging("audio", "wav2vec2", {"sound": "batch:1..3xsamples:2000..5000"}),
    _hugging("audio", "hubert", {"sound": "batch:1..3xsamples:2000..5000"}),
    _hugging("audio", "whisper_encoder", {"sound": "batch:1..3x80x200"}),
    _hugging("audio", "spectrogram_transformer", {"sound": "batch:1..3x64x32"}),
    _hugging("recurrent", "mamba", {"input_ids": "batch:1..3x8"}, ranges={"input_ids": "0..499"}),
)


def _written(place: str) -> Callable[[Path], Made]:
    """Return a maker that calls ``module.function`` of this package; ``module.function(argument)`` returns one."""

    def make(folder: Path) -> Made:
        module, call = place.split(".")
        name, _, argument = call.rstrip(")").partition("(")
        found = getattr(importlib.import_module(f"benchmarks.gallery.{module}"), name)
        made: Made = (found(argument) if argument else found)(folder)
        return made

    return make


def _light(name: str, image: str = "data_0") -> Entry:
    return Entry(
        f"onnx light_{name}", "cnn", "onnx", _written(f"onnx_models.light({name})"),
        {image: "batch:1..3x3x224x224"}, make_dynamic=("batch",),
        constant="every weight of the onnx wheel's light models is one constant, so that this shows the structure only",
    )  # fmt: skip


def _onnx(family: str, name: str, shapes: Mapping[str, str], **more: Any) -> Entry:
    return Entry(f"onnx {name}", family, "onnx", _written(f"onnx_models.{name}"), shapes, **more)


_KERAS_WRITERS = {"keras file": "as_keras", "SavedModel": "as_saved_model", "h5 file": "as_h5"}


def _keras(kind: str, family: str, name: str, shapes: Mapping[str, str], **more: Any) -> Entry:
    """Return a Keras model as one kind of file."""
    make = _written(f"keras_models.{_KERAS_WRITERS[kind]}({name})")
    return Entry(f"{name} as {kind}", family, kind, make, shapes, needs=("tensorflow", "keras"), **more)


def _application(kind: str, name: str, **more: Any) -> Entry:
    return _keras(kind, "cnn", name, {"image": "batch:1..3x224x224x3"}, **more)


_ONNX = (
    _light("bvlc_alexnet"),
    _light("densenet121"),
    _light("inception_v1"),
    _light("inception_v2"),
    _light("resnet50", "gpu_0/data_0"),
    _light("shufflenet", "gpu_0/data_0"),
    _light("squeezenet"),
    _light("vgg19"),
    _light("zfnet512", "gpu_0/data_0"),
    _onnx("detector", "nms_detector", {"image": "batch:1..3x3x64x64"}),
    _onnx("recurrent", "scan_recurrent", {"x": "length:3..9xbatch:1..4x8", "state": "batch:1..4x12"}),
    _onnx(
        "text encoder", "text_lookup", {"ids": "batch:1..3xlength:3..9", "largest": "1"}, ranges={"ids": "0..49"}
    ),
)  # fmt: skip

_PIXELS = {"image": "0..255"}
_KERAS = tuple(
    entry
    for kind in ("keras file", "SavedModel")
    for entry in (
        _application(kind, "ResNet50"),
        _application(kind, "MobileNetV2"),
        _application(kind, "EfficientNetB0", ranges=_PIXELS),
        _application(kind, "ConvNeXtTiny", ranges=_PIXELS),
        _application(kind, "MobileNetV3Small", ranges=_PIXELS),
        _keras(kind, "vision transformer", "ViT", {"image": "batch:1..3x64x64x3"}),
        _keras(kind, "segmentation", "U-Net", {"image": "batch:1..3x64x64x3"}),
        _keras(kind, "recurrent", "LSTM", {"ids": "batch:1..3xlength:5..20"}, ranges={"ids": "0..499"}),
    )
)

ENTRIES: tuple[Entry, ...] = (*_PLAIN, *_TRANSFORMERS, *_KERAS, _application("h5 file", "MobileNetV2"), *_ONNX)
"""Every entry, by source."""
