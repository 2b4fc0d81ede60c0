"""The audit: an engine that was built in another precision than asked fails by name."""

from __future__ import annotations

import pytest

from enginery.backends.tensorrt.audit import check
from enginery.backends.tensorrt.inspection import UNREADABLE
from enginery.errors import PrecisionMismatchError
from enginery.records import LayerRecord
from enginery.spec import PrecisionPlan


def layers(*precisions: str, kind: str = "CaskConvolution") -> list[LayerRecord]:
    """Make convolutions of these precisions."""
    return [LayerRecord(f"conv{at}", kind, word, nodes=(f"conv{at}",)) for at, word in enumerate(precisions)]


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_an_fp32_engine_where_a_narrow_one_was_asked(precision):
    """Counts and layers are named, and how to allow it."""
    with pytest.raises(PrecisionMismatchError) as caught:
        check(layers("fp32", "fp32", "fp32"), PrecisionPlan(precision))
    assert str(caught.value) == (
        f"{precision} was asked for, and of 3 layers that should compute in it TensorRT built 3 in fp32: "
        "conv0 (CaskConvolution, fp32), conv1 (CaskConvolution, fp32), conv2 (CaskConvolution, fp32); "
        "compare the shapes and options, or allow it by name: --option allow_precision=fp32"
    )


def test_what_is_allowed_by_name_passes_with_a_note():
    """It is still told."""
    (note,) = check(layers("fp32", "fp32"), PrecisionPlan("fp16"), ["fp32"])
    assert note.startswith("of 2 layers that may compute in fp16, 2 in fp32: conv0")


def test_single_wide_layers_are_told():
    """On 8 the builder may find a float32 kernel faster."""
    (note,) = check(layers("fp16", "fp16", "fp32"), PrecisionPlan("fp16"))
    assert note == "of 3 layers that may compute in fp16, 1 in fp32: conv2 (CaskConvolution, fp32)"


def test_layers_as_asked_need_no_note():
    """Nothing is said where nothing is to be said; data that only moves is no evidence."""
    assert check(layers("fp16", "fp16") + layers("", kind="Reformat"), PrecisionPlan("fp16")) == ()
    assert check(layers("fp32", "tf32"), PrecisionPlan("fp32")) == ()


def test_pointwise_layers_prove_nothing_where_there_are_heavier_ones():
    """An engine with half activations and float32 convolutions is no half engine."""
    both = layers("fp32", "fp32") + layers("fp16", "fp16", kind="PointWiseV2")
    with pytest.raises(PrecisionMismatchError, match="2 layers"):
        check(both, PrecisionPlan("fp16"))


def test_nodes_that_the_plan_keeps_are_not_missed():
    """A plan's own exceptions are no mismatch; where they came out narrow, that is told."""
    plan = PrecisionPlan("fp16", {"conv0": "fp32"})
    assert check(layers("fp32", "fp16"), plan) == ()
    (note,) = check(layers("fp16", "fp16"), plan)
    assert note.startswith("1 layer with nodes that the plan keeps in fp32 read narrower types: conv0")


def test_int8_nodes_in_a_half_plan():
    """Quantised nodes must be quantised; the rest half."""
    plan = PrecisionPlan("fp16", {"conv0": "int8"})
    assert check(layers("int8", "fp16"), plan) == ()
    with pytest.raises(PrecisionMismatchError, match="int8 was asked for, and of 1 layer"):
        check(layers("fp16", "fp16"), plan)


def test_regions_that_do_not_tell():
    """Nothing is claimed of what Myelin hides."""
    (note,) = check(layers("", kind="Myelin"), PrecisionPlan("fp16"))
    assert note == "fp16 was asked for, and the inspector does not tell what it built in 1 region compiled as a whole"


def test_a_region_of_a_mixed_plan_does_not_tell_either():
    """What should compute in half lies in it, beside what should not."""
    region = LayerRecord("{ForeignNode[a...b]}", "Myelin", "", nodes=("a", "b"))
    (note,) = check([region], PrecisionPlan("fp32", {"b": "fp16"}))
    assert note == "fp16 was asked for, and the inspector does not tell what it built in 1 region compiled as a whole"


def test_an_unreadable_inspector():
    """It is told, not hidden."""
    (note,) = check([LayerRecord("no JSON", UNREADABLE, "")], PrecisionPlan("fp16"))
    assert note == "the precision that was built is not known: no JSON"
