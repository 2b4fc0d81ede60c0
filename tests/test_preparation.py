"""A source becomes a graph with profiles, and inputs are made for it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from enginery import preparation
from enginery.errors import UsageError
from enginery.sources import open_source
from enginery.spec import PrecisionPlan, parse_shapes
from telling import Said

PAIR = """<ir_version: 8, opset_import: ["": 17]>
pair (int64[batch, length] ids, int64[batch, length] mask) => (int64[batch, length] y) { y = Add(ids, mask) }"""
SEQUENCE = """<ir_version: 8, opset_import: ["": 17]>
first (seq(float[2]) all) => (float[2] y) { zero = Constant<value_int = 0>() y = SequenceAt(all, zero) }"""


def test_an_input_without_a_shape_takes_the_sizes_of_its_symbols(tmp_path):
    """One --shapes sizes every input with the same symbolic names: the mask follows the ids."""
    prepared = preparation.prepare(
        open_source(ir.from_onnx_text(PAIR)), tmp_path, shapes=parse_shapes(["ids=1..2..4x8..16..32"])
    )
    assert [str(info.profile) for info in prepared.inputs] == ["batch:1..2..4xlength:8..16..32"] * 2
    cases = preparation.make_cases(prepared, say=lambda _: None)
    assert [(case.name, case.feeds["mask"].shape) for case in cases.cases] == [
        ("min", (1, 8)), ("opt", (2, 16)), ("max", (4, 32)),
    ]  # fmt: skip


def test_a_static_model_is_run_at_its_opt_shape(tmp_path):
    """Where all ends are one, the case is the one that is timed."""
    text = PAIR.replace("batch, length", "2, 3")
    prepared = preparation.prepare(open_source(ir.from_onnx_text(text)), tmp_path)
    cases = preparation.make_cases(prepared, say=lambda _: None)
    assert [case.name for case in cases.cases] == [cases.timed] == ["opt"]


def test_open_sizes_are_guessed_for_the_first_axis_alone(tmp_path):
    """A batch that nobody sized is tried at 1 and 2, and said so; any other axis is asked for."""
    text, said = PAIR.replace("batch, length", "batch, 3"), Said()
    prepared = preparation.prepare(open_source(ir.from_onnx_text(text)), tmp_path, simplify=False, progress=said)
    assert said.lines == []
    cases = preparation.make_cases(prepared, say=said.say).cases
    assert [array.shape for case in cases for array in case.feeds.values()] == [(1, 3), (1, 3), (2, 3), (2, 3)]
    assert said.lines[0].startswith("input 'ids' has a dynamic axis 0 and no sizes for it: verified at 1 and 2")
    prepared = preparation.prepare(open_source(ir.from_onnx_text(PAIR)), tmp_path, simplify=False)
    with pytest.raises(
        UsageError, match=r"input 'ids' has dynamic axes 0 \(batch\), 1 \(length\) and no sizes"
    ) as told:
        preparation.make_cases(prepared, say=said.say)
    assert told.value.mend.endswith("for example --shapes ids=1..8..32x1..64..128")


def test_a_graph_whose_inputs_cannot_be_made_up_is_simplified_all_the_same(tmp_path):
    """Sequences are not drawn at random: the structure alone is checked then, and that is said."""
    said = Said()
    prepared = preparation.prepare(open_source(ir.from_onnx_text(SEQUENCE)), tmp_path, progress=said)
    assert prepared.simplify is not None
    assert prepared.simplify.checked_by.endswith("(outputs not compared: nothing to run the graph with was given)")
    (line,) = said.lines
    assert line.endswith("input 'all' is a sequence(float32): random inputs are made for tensors only")


def test_the_reference_of_an_onnx_file_is_the_untouched_graph(tmp_path):
    """Its outputs come from the graph as it was exported, and are named in words."""
    prepared = preparation.prepare(open_source(ir.from_onnx_text(PAIR)), tmp_path, shapes=parse_shapes(["ids=2x3"]))
    cases = preparation.make_cases(prepared, say=lambda _: None)
    (outputs,), said = preparation.reference_outputs(prepared, cases.cases, tmp_path)
    np.testing.assert_array_equal(outputs["y"], sum(cases.cases[0].feeds.values()))
    assert said == "onnx model pair on onnxruntime without optimisation"


def test_one_word_for_what_was_asked(tmp_path):
    """A plan gives its narrowest precision; a precision beside it must be its own."""
    plan = PrecisionPlan("fp32", {"a": "int8", "b": "fp16"})
    (tmp_path / "precision.json").write_text('{"precision": "bf16"}')
    assert preparation.asked_precision(None, None) == ("fp32", None)
    assert preparation.asked_precision("tf32", None) == ("tf32", None)
    assert preparation.asked_precision(None, plan) == ("int8", plan)
    assert preparation.asked_precision("fp32", plan) == ("fp32", plan)
    assert preparation.asked_precision(None, tmp_path) == ("bf16", PrecisionPlan("bf16"))
    with pytest.raises(UsageError, match="fp16 was asked for, and the precision plan says fp32 with int8 nodes"):
        preparation.asked_precision("fp16", plan)
    with pytest.raises(UsageError, match="not 'best'"):
        preparation.asked_precision("best", None)
