"""The sets of graphs: ONNX's own tests, its light models, the gallery, and random ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx

__all__ = ["SETS", "Case", "Options"]

Feeds = Mapping[str, Any]
_LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
_LOADED = ("simple", "pytorch-operator", "pytorch-converted")


@dataclass(frozen=True)
class Case:
    """A graph with one call's inputs.

    Args:
        name: unique in its set.
        make: reads or makes the graph.
        feeds: makes the inputs of one call.
    """

    name: str
    make: Callable[[], onnx.ModelProto]
    feeds: Callable[[], Feeds]


@dataclass(frozen=True)
class Options:
    """What the sets are told.

    Args:
        exports: the folder of the gallery's graphs.
        count: how many random graphs.
    """

    exports: Path
    count: int = 300


def operators(_: Options) -> Iterator[Case]:
    """Yield ONNX's tests of single operators and of PyTorch's modules that have a float32 input or output."""
    from onnx.backend.test.case.node import collect_testcases  # noqa: PLC0415 - it takes seconds
    from onnx.backend.test.loader import load_model_tests  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the generators overflow and divide by zero on purpose
        made = collect_testcases(None)
    for case in made:
        if case.model is not None and _holds_float32(case.model.graph):
            yield Case(case.name, lambda case=case: _copy(case.model), lambda case=case: _fed(case))
    for kind in _LOADED:
        for case in sorted(load_model_tests(kind=kind), key=lambda one: one.name):
            folder = Path(case.model_dir or "")
            model = onnx.load(folder / "model.onnx")
            if _holds_float32(model.graph):
                yield Case(f"{kind} {case.name}", lambda model=model: _copy(model), lambda at=folder: _read(at))


def light(_: Options) -> Iterator[Case]:
    """Yield the classifiers that lie in onnx with constants for weights."""
    for path in sorted(_LIGHT.glob("*.onnx")):
        yield Case(path.stem, lambda path=path: onnx.load(path), lambda path=path: _pictures(onnx.load(path)))


def gallery(options: Options) -> Iterator[Case]:
    """Yield the gallery's graphs as they were exported and simplified."""
    from benchmarks.converter_torture.exports import exported  # noqa: PLC0415 - it imports Enginery

    for entry, path in exported(options.exports):
        yield Case(entry.name, lambda path=path: onnx.load(path), lambda at=(entry, path): _drawn(*at))


def random(options: Options) -> Iterator[Case]:
    """Yield graphs of a generator, the same each time."""
    from benchmarks.converter_torture.random_graphs import random_feeds, random_model  # noqa: PLC0415

    for seed in range(options.count):
        make = lambda seed=seed: random_model(Random(seed))  # noqa: E731, S311 - bound to this seed; no secret
        yield Case(f"random {seed}", make, lambda make=make, seed=seed: random_feeds(make(), seed))


SETS: dict[str, Callable[[Options], Iterator[Case]]] = {
    "operators": operators, "light": light, "gallery": gallery, "random": random,
}  # fmt: skip


def _holds_float32(graph: onnx.GraphProto) -> bool:
    values = (*graph.input, *graph.output)
    return any(one.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for one in values)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _fed(case: Any) -> Feeds:
    values: Sequence[Any] = case.data_sets[0][0]
    arrays = [onnx.numpy_helper.to_array(one) if isinstance(one, onnx.TensorProto) else one for one in values]
    return dict(zip([one.name for one in case.model.graph.input], arrays, strict=False))


def _read(folder: Path) -> Feeds:
    """Read the first set of inputs of a test that lies on disk."""
    graph = onnx.load(folder / "model.onnx").graph
    inner = {one.name for one in graph.initializer}
    feeds = {}
    for at, value in enumerate(one for one in graph.input if one.name not in inner):
        tensor = onnx.TensorProto()
        tensor.ParseFromString((folder / "test_data_set_0" / f"input_{at}.pb").read_bytes())
        feeds[value.name] = onnx.numpy_helper.to_array(tensor)
    return feeds


def _pictures(model: onnx.ModelProto) -> Feeds:
    inner = {one.name for one in model.graph.initializer}
    generator = np.random.default_rng(0)
    return {
        one.name: generator.random([dim.dim_value for dim in one.type.tensor_type.shape.dim], np.float32)
        for one in model.graph.input
        if one.name not in inner
    }


def _drawn(entry: Any, path: Path) -> Feeds:
    """Draw the inputs of a gallery's entry at the size it is tuned for."""
    import enginery  # noqa: PLC0415 - only this set needs it
    from enginery.graph import base, files  # noqa: PLC0415
    from enginery.inputs.generated import random_case  # noqa: PLC0415

    shapes = {name: enginery.Shape.parse(text) for name, text in entry.shapes.items()}
    ranges = {name: enginery.Range.parse(text) for name, text in entry.ranges.items()}
    infos = base.tensor_infos(files.load(path).graph.inputs)
    inputs = tuple(replace(info, profile=shapes[info.name]) for info in infos)
    return random_case(inputs, "opt", seed=1, ranges=ranges).feeds
