"""Parts of a graph, built as the whole was: what they are asked for, and what TensorRT-RTX says to their outputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

import enginery
from enginery import backends
from enginery.backends import engine as engines
from enginery.errors import InputShapeError
from enginery.evaluation import Evaluator
from enginery.graph.base import cuts_of, load_model
from enginery.part_engines import PartEngines, part_spec
from enginery.records import ManifestRecord, TensorInfo
from enginery.spec import PrecisionPlan, Shape, parse_shapes

DIGITS = "examples/digits/digits.onnx"
TWO = """<ir_version: 8, opset_import: ["": 17]> g (float[batch, 4] x, float[batch, 4] z) => (float[batch, 4] y) {
    [neg] a = Neg(x) [abs] b = Abs(z) [add] y = Add(a, b) }"""


@pytest.fixture
def manifest(small_model, tmp_path):
    """Return the manifest of an engine with a profile."""
    built = engines.build(
        small_model, enginery.spec.BuildSpec(parse_shapes(["x=1..2..4x4"])), tmp_path / "whole.engine"
    )
    return built.manifest


def asked(manifest: ManifestRecord, **changes) -> ManifestRecord:
    """Return a manifest as it would be of another engine."""
    return replace(manifest, **changes)


def test_a_part_is_asked_for_what_it_has_of_the_whole(manifest):
    """Profiles of its own inputs, the plan of its own nodes, and the same options."""
    cuts = cuts_of(ir.from_onnx_text(TWO))
    shape = Shape.parse("batch:1..2..4x4")
    inputs = tuple(TensorInfo(name, "float32", ("batch", 4), shape) for name in ("x", "z"))
    whole = asked(manifest, inputs=inputs, precision="bf16", profiles=({"x": shape, "z": shape},))
    plan = PrecisionPlan("bf16", {"neg": "fp32", "add": "fp32"})
    spec = part_spec(whole, plan, cuts.part((), ["a"]))
    assert (spec.shapes, spec.profiles) == ({"x": shape}, ({"x": shape},))
    assert (spec.plan.precision, spec.plan.nodes) == ("bf16", {"neg": "fp32"})
    assert spec.precision == "bf16"
    assert {**spec.options, "allow_precision": ""} == manifest.options
    fixed = cuts.window(0, ["a"], {"x": np.zeros((2, 4), np.float32)}, {})
    assert part_spec(whole, None, fixed).shapes == {}


def test_a_part_without_quantised_nodes_is_float32(manifest):
    """An INT8 engine is float32 where nothing is quantised: its backend would refuse to build nothing in INT8."""
    part = cuts_of(ir.from_onnx_text(TWO)).part((), ["a"])
    assert part_spec(asked(manifest, precision="int8"), None, part).precision == "fp32"


def test_another_worker_takes_the_place_of_a_dead_one(manifest, small_model, tmp_path):
    """What a part does to its process ends with it."""
    cuts = cuts_of(small_model)
    feeds = {"x": np.ones((2, 4), np.float32)}
    with PartEngines("parts", manifest, None, tmp_path) as parts:
        first = parts.run(cuts.part((), ["h"]), feeds)
        parts._worker.kill()
        assert np.array_equal(parts.run(cuts.part((), ["h"]), feeds)["h"], first["h"])
        with pytest.raises(InputShapeError):
            parts.run(cuts.window(0, ["h"], feeds, {}), {"x": np.ones((3, 4), np.float32)})
        assert parts.built == 3
    assert not list(tmp_path.glob("parts*"))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_rtx_builds_every_cut(tmp_path, precision):
    """Ahead of time, without a GPU: what crosses each cut can be an output, and each node can stand alone."""
    if not backends.get("tensorrt_rtx").probe().available:
        pytest.skip("tensorrt_rtx is not installed")
    shapes = parse_shapes(["image=1..2..4x1x8x8"])
    whole = enginery.build(
        DIGITS, tmp_path / "whole.engine", backend="tensorrt_rtx", precision=precision, shapes=shapes
    )
    graph, feeds = load_model(DIGITS), {"image": np.random.default_rng(0).random((2, 1, 8, 8), np.float32)}
    cuts = cuts_of(graph)
    for place in cuts.places[1:]:
        names = cuts.crossing(place)
        part = cuts.part((), names)
        spec = part_spec(whole.manifest, None, part)
        built = engines.build(part, spec, tmp_path / "part.engine", backend="tensorrt_rtx")
        assert [info.name for info in built.manifest.outputs] == list(names)
        with Evaluator(tmp_path) as evaluator:
            given = evaluator.run(cuts.part((), before), [feeds])[0] if (before := cuts.crossing(place - 1)) else {}
        window = cuts.window(place - 1, [names[-1]], {**feeds, **given}, {})
        spec = part_spec(whole.manifest, None, window)
        engines.build(window, spec, tmp_path / "window.engine", backend="tensorrt_rtx")
