"""Records go to JSON and come back the same."""

from __future__ import annotations

import json
import math

import pytest

from enginery.errors import ManifestError
from enginery.machine import describe_machine
from enginery.plain import from_json, to_json, to_plain
from enginery.records import BuildRecord, MachineRecord, OutputRecord, TensorInfo, VerifyRecord
from enginery.spec import Shape


def test_round_trip_of_nested_records():
    """Nested records, tuples, mappings and None survive."""
    info = TensorInfo("input", "float32", ("batch", 3), Shape.parse("1..8..32x3"))
    assert from_json(TensorInfo, to_json(info)) == info
    assert from_json(MachineRecord, to_json(describe_machine())) == describe_machine()


def test_options_keep_their_types():
    """A bool stays a bool, an int an int, a float a float and a string a string."""
    record = BuildRecord("b", "1", "fp32", {"fp32": 3}, {"a": True, "b": 2, "c": 0.5, "d": "x"}, 1.0, 2)
    assert from_json(BuildRecord, to_json(record)).options == record.options
    assert [type(value) for value in from_json(BuildRecord, to_json(record)).options.values()] == [
        bool, int, float, str,
    ]  # fmt: skip


def test_floats_that_json_cannot_hold():
    """NaN and the infinities are written as strings and read as floats."""
    record = OutputRecord("y", "opt", "float32", (1,), max_abs=math.nan, snr_db=math.inf, cosine=-math.inf)
    text = to_json(record)
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    back = from_json(OutputRecord, text)
    assert math.isnan(back.max_abs)
    assert (back.snr_db, back.cosine) == (math.inf, -math.inf)


def test_new_fields_are_ignored_and_missing_ones_named():
    """Old code reads new files; a file that lacks a field says which."""
    plain = to_plain(TensorInfo("x", "float32", (1,)))
    assert from_json(TensorInfo, json.dumps({**plain, "later": 1})).name == "x"
    with pytest.raises(ManifestError, match=r"TensorInfo\.dtype is missing"):
        from_json(TensorInfo, json.dumps({"name": "x", "shape": [1]}))


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"name": 3, "dtype": "a", "shape": []}'])
def test_what_is_no_record_is_refused(text):
    """Text that is no JSON, no object or of the wrong types is a ManifestError with a mend."""
    with pytest.raises(ManifestError, match="build the engine again"):
        from_json(TensorInfo, text)


def test_reason_of_a_failed_verification():
    """A record that did not pass says why in one line."""
    record = VerifyRecord("r", "i", (), (), error=5e-3, max_error=1e-3, passed=False)
    assert record.reason == "error 5.00e-03 is above 1.00e-03"
    nan = VerifyRecord("r", "i", (), (), error=math.nan, max_error=1e-3, passed=False)
    assert nan.reason == "error nan is above 1.00e-03"
