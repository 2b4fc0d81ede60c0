"""INT8 from recorded inputs to engine: every kind of data, ranges kept between runs, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from enginery import steps
from enginery.backends.base import Capabilities, Design
from enginery.errors import DataError, GraphError, UnknownNameError, UsageError
from enginery.graph import files
from enginery.graph.base import quantisable
from enginery.progress import Progress
from enginery.quantising import (
    Calibration,
    Quantiser,
    check_calibration,
    make_quantiser,
    quantise_contestants,
    quantised,
)
from enginery.spec import BuildSpec, PrecisionPlan, parse_shapes
from enginery.tuning.candidates import GRAPH, Contestant
from telling import Said

DIGITS = Path(__file__).parents[1] / "examples" / "digits"
SHAPES = parse_shapes(["image=1..32..64x1x8x8"])
OFFERED = Capabilities(frozenset({"fp32", "int8"}), max_opset=20)


@pytest.fixture
def images():
    """Return real images of digits, and their labels."""
    with np.load(DIGITS / "heldout.npz") as held:
        return held["image"], held["labels"]


@pytest.fixture
def design(tmp_path, monkeypatch):
    """Return the digits network as a design; ranges are kept beside it."""
    monkeypatch.setenv("ENGINERY_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "digits.onnx"
    files.save(files.load(DIGITS / "digits.onnx"), path)
    return Design(path, graph_sha256=files.hash_model(path))


def quantiser(design, data, progress, method="minmax"):
    """Return one that works beside the design."""
    return Quantiser(Calibration(data, method), SHAPES, design.path.parent, progress)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_an_int8_engine_from_a_data_loader(tmp_path, monkeypatch, images, backend):
    """Pairs of images and labels, as a torch DataLoader gives them; the answers stay right, and are INT8's."""
    torch = pytest.importorskip("torch")
    pytest.importorskip(backend)
    monkeypatch.setenv("ENGINERY_CACHE", str(tmp_path / "cache"))
    pictures, labels = images
    pairs = torch.utils.data.TensorDataset(torch.from_numpy(pictures[:100]), torch.from_numpy(labels[:100]))
    loader = torch.utils.data.DataLoader(pairs, batch_size=8)
    engine = steps.build(
        DIGITS / "digits.onnx", tmp_path / "digits.engine", backend=backend, shapes=SHAPES, precision="int8",
        calibration=loader, in_process=True,
    )  # fmt: skip
    assert engine.manifest.precision_built["int8"] >= 5
    with engine.open() as session:
        right = session.run({"image": pictures[100:164]})["scores"].argmax(1) == labels[100:164]
    assert right.mean() > 0.95


def test_ranges_are_kept(design, images):
    """The second run with the same graph and data runs nothing; other data or another method does."""
    lines = []
    for rows, method in ((64, "minmax"), (64, "minmax"), (32, "minmax"), (64, "percentile")):
        progress = Said()
        quantiser(design, [{"image": images[0][:rows]}], progress, method).ranges(design)
        lines.append(" ".join(progress.lines).split(" ")[0:2])
    assert lines == [["calibrated", "8"], ["calibration:", "ranges"], ["calibrated", "8"], ["calibrated", "8"]]


def test_kept_ranges_that_are_damaged(design, images, tmp_path):
    """They are told of, seen anew, and written over."""
    data = [{"image": images[0][:64]}]
    whole = quantiser(design, data, Said()).ranges(design)
    (kept,) = (tmp_path / "cache" / "ranges").glob("*.json")
    text = kept.read_text()
    kept.write_text(text[:50])
    progress = Said()
    assert quantiser(design, data, progress).ranges(design) == whole
    assert "is damaged, and the data is run again" in progress.lines[0]
    assert kept.read_text() == text


def test_what_a_backend_has_no_kernel_for_stays_as_it_is(tmp_path, monkeypatch):
    """Its plan says of a depthwise convolution on TensorRT 8 that it stays, and why."""
    monkeypatch.setenv("ENGINERY_CACHE", str(tmp_path / "cache"))
    model = ir.from_onnx_text("""<ir_version: 9, opset_import: ["": 17]> g (float[n, 2, 4, 4] image)
        => (float[n, 2, 2, 2] y) <float[2, 1, 3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 8, 7, 6, 5, 4, 3, 2, 1},
        float[2, 2, 1, 1] v = {1, -1, 2, 3}> { [dense] a = Conv(image, v) [deep] y = Conv <group = 2> (a, w) }""")
    path = tmp_path / "deep.onnx"
    files.save(model, path)
    design = Design(path, graph_sha256=files.hash_model(path))
    shapes = parse_shapes(["image=4x2x4x4"])
    data = [{"image": np.random.default_rng(0).standard_normal((4, 2, 4, 4)).astype(np.float32)}]
    given = make_quantiser(data, "minmax", None, shapes, tmp_path, Progress())
    offered = replace(OFFERED, int8_form="symmetric8", int8_rest="fp16")
    plan = quantised(design, BuildSpec(shapes, "int8"), offered, given)[1].plan
    assert plan.nodes == {"dense": "int8", "deep": "fp16"}
    assert "its backend has no kernel" in plan.reasons["deep"]


def test_data_that_is_read_once(design, images, tmp_path):
    """A generator is run through once, and nothing is kept of it."""
    data = ({"image": images[0][at : at + 8]} for at in range(0, 64, 8))
    assert quantiser(design, data, Said()).ranges(design).batches == 2
    assert not (tmp_path / "cache").exists()


def test_what_is_no_data(design):
    """A number is none, and is refused in words."""
    with pytest.raises(DataError, match="a int is no data; name an"):
        quantiser(design, 5, Said()).ranges(design)


def test_one_design_for_a_plan_and_a_form(design, images):
    """The same plan gives the same file; another set of nodes another, from the same ranges."""
    found = quantiser(design, [{"image": images[0][:64]}], Said())
    nodes = quantisable(files.load(design.path))
    full = PrecisionPlan("fp32", dict.fromkeys(nodes, "int8"))
    one = found.quantise(design, full, "whole")
    assert found.quantise(design, replace(full, reasons={nodes[0]: "why"}), "whole") is one
    less = found.quantise(design, PrecisionPlan("fp32", {nodes[0]: "int8"}), "whole")
    assert less.graph_sha256 not in ("", one.graph_sha256, design.graph_sha256)
    assert one.notes == ("quantised 7 activations and 5 weights, by minmax over 2 batches",)


def test_one_build(design, images):
    """With data the plan names every node that can; without, only weights change, if that was asked for."""
    given = make_quantiser([{"image": images[0][:64]}], "minmax", None, SHAPES, design.path.parent, Progress())
    spec = BuildSpec(SHAPES, "int8")
    made, full = quantised(design, spec, OFFERED, given)
    assert made.path != design.path
    assert full.plan is not None
    assert list(full.plan.nodes) == list(quantisable(files.load(design.path)))
    assert quantised(design, spec, OFFERED, None) == (design, spec)
    small, same = quantised(design, BuildSpec(SHAPES), OFFERED, None, weight_bits=8)
    assert same == BuildSpec(SHAPES)
    assert small.path.stat().st_size < 0.8 * design.path.stat().st_size
    by_hand = replace(design, path=design.path.with_suffix(".py"))
    with pytest.raises(UsageError, match="built by hand is no graph that could be quantised"):
        quantised(by_hand, spec, OFFERED, given)
    assert make_quantiser(None, "minmax", None, SHAPES, design.path.parent, Progress()) is None


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ((["data"], "minmax", ["fp32"]), UsageError, "data to calibrate with was given, and fp32 needs none; ask for"),
        ((["data"], "minmx", ["int8"]), UnknownNameError, "method of calibration 'minmx'; did you mean 'minmax'"),
        ((None, "entropy", ["fp16"]), UsageError, "'entropy' says how to calibrate, and there is no data"),
        ((["data"], "minmax", ["int8"], 4), UsageError, "both were asked for: 4 bits for weights alone, and int8 for"),
    ],
)
def test_what_is_given_for_nothing(given, kind, said):
    """It is refused before a long export, never passed over; ``best`` and a plan with int8 in it take data."""
    with pytest.raises(kind) as caught:
        check_calibration(*given)
    assert said in str(caught.value)
    check_calibration(["data"], "entropy", ["best"])
    check_calibration(["data"], "minmax", ["fp16", "int8"])
    check_calibration(None, "minmax", ["fp32"], 4)


def test_contestants(design, images):
    """Without data those for int8 are left out with a word; with data each takes its backend's form."""
    plain = Contestant("onnxruntime", "candidate", "onnxruntime")
    low = Contestant("onnxruntime int8", "candidate", "onnxruntime", precision="int8", int8_form="whole")
    progress = Said()
    found, designs = quantise_contestants([plain, low], {GRAPH: design}, None, progress)
    assert (found, designs) == ([plain], {GRAPH: design})
    assert progress.lines == ["not tried, for want of calibration data: onnxruntime int8; give it with --calibration"]
    given = quantiser(design, [{"image": images[0][:64]}], progress)
    (same, made), designs = quantise_contestants([plain, low], {GRAPH: design}, given, progress)
    assert same == plain
    assert made.origin == GRAPH
    assert designs[made.design].path.stem == made.design
    assert made.plan is not None
    assert set(made.plan.nodes.values()) == {"int8"}
    wrong = replace(low, plan=PrecisionPlan("fp32", {"node_relu": "int8"}))
    (refused,), _ = quantise_contestants([wrong], {GRAPH: design}, given, progress)
    assert "node 'node_relu' (Relu) cannot read INT8" in refused.missing
    default = replace(low, plan=PrecisionPlan("int8"))
    (by_default,), _ = quantise_contestants([default], {GRAPH: design}, given, progress)
    assert (by_default.plan, by_default.design) == (made.plan, made.design)


def test_int8_for_all_that_a_plan_does_not_name(design, images):
    """The nodes that can be quantised are, but for those that it names otherwise; what it names must be able to."""
    given = make_quantiser([{"image": images[0][:64]}], "minmax", None, SHAPES, design.path.parent, Progress())
    first, *others = quantisable(files.load(design.path))
    plan = PrecisionPlan("int8", {first: "fp32"}, {first: "it harms"})
    made, spec = quantised(design, BuildSpec(SHAPES, "int8", plan=plan), OFFERED, given)
    assert spec.plan is not None
    assert spec.plan.precision == "fp32"
    assert spec.plan.nodes == {first: "fp32", **dict.fromkeys(others, "int8")}
    assert spec.plan.reasons[first] == "it harms"
    assert made.notes[-1].startswith(f"quantised {len(others)} activations")
    with pytest.raises(GraphError, match=r"node 'node_relu' \(Relu\) cannot read INT8"):
        quantised(design, BuildSpec(SHAPES, "int8", plan=PrecisionPlan("int8", {"node_relu": "int8"})), OFFERED, given)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_int8_for_all_that_a_plan_does_not_name_without_data(tmp_path, backend):
    """It is refused on every backend as a node that is named is, and the mend names the data."""
    pytest.importorskip(backend)
    with pytest.raises(
        GraphError, match=r"does not name in int8, and nothing quantises .*--calibration PATH"
    ) as caught:
        steps.build(
            DIGITS / "digits.onnx", tmp_path / "a.engine", backend=backend, plan=PrecisionPlan("int8"), shapes=SHAPES,
            in_process=True,
        )  # fmt: skip
    assert caught.value.exit_code == 20


def test_what_stands_where_labels_do_is_not_read(design, images):
    """Targets of a regression, or of any other kind, beside the inputs."""
    pictures = images[0][:64]
    floats = [(pictures[:32], np.zeros((32, 2), np.float32)), (pictures[32:], np.ones((32, 2), np.float32))]
    objects = [(pictures[:32], [{"boxes": [1]}, {}]), (pictures[32:], [[1], [1, 2]])]
    for data in (floats, objects):
        assert quantiser(design, data, Said()).ranges(design).batches == 2
    np.savez(design.path.parent / "held.npz", image=pictures, labels=np.zeros((64, 2), np.float32))
    steps.quantize(design.path, design.path.parent / "q.onnx", data=design.path.parent / "held.npz")
    assert (design.path.parent / "q.onnx").exists()


def test_what_the_build_says_without_data(tmp_path):
    """The mend is the option that was left out; data of another range than the examples is refused."""
    with pytest.raises(GraphError, match=r"int8 was asked for.*--calibration"):
        steps.build(DIGITS / "digits.onnx", tmp_path / "a.engine", precision="int8", shapes=SHAPES, in_process=True)
    with pytest.raises(DataError, match="'image' lies in"):
        steps.build(
            DIGITS / "digits.onnx", tmp_path / "a.engine", precision="int8", shapes=SHAPES, in_process=True,
            example_inputs=np.load(DIGITS / "seven.npy"), calibration=[np.load(DIGITS / "seven.npy") * 255] * 2,
        )  # fmt: skip
