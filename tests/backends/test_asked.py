"""Options and precisions that were asked for are checked against a backend's rules."""

from __future__ import annotations

import pytest

from enginery.backends import engine
from enginery.backends.asked import OptionRule, check_options, check_precision_offered
from enginery.errors import PrecisionError, UnknownNameError, UsageError
from enginery.spec import BuildSpec

RULES = {
    "threads": OptionRule(2, low=1),
    "mode": OptionRule("fast", choices=("fast", "exact")),
    "device": OptionRule("cpu"),
    "spin": OptionRule(default=True),
}


def test_fills_in_defaults_and_reads_texts():
    """What is not given takes its default; texts become the option's type."""
    assert check_options(RULES) == {"threads": 2, "mode": "fast", "device": "cpu", "spin": True}
    given = {"threads": "4", "mode": "EXACT", "spin": "off", "device": "Gpu"}
    assert check_options(RULES, given) == {"threads": 4, "mode": "exact", "device": "Gpu", "spin": False}


def test_the_last_mapping_stands():
    """A session's options stand over the engine's."""
    assert check_options(RULES, {"threads": 4, "spin": False}, {"threads": 1}) == {
        "threads": 1, "mode": "fast", "device": "cpu", "spin": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"thread": 1}, UnknownNameError, "unknown option 'thread'; did you mean 'threads'?"),
        ({"mode": "exakt"}, UnknownNameError, "unknown value of option 'mode': 'exakt'; did you mean 'exact'?"),
        ({"threads": 0}, UsageError, "option 'threads' is 0; give 1 or more"),
        ({"threads": "two"}, UsageError, "option 'threads' is 'two'; give a whole number"),
        ({"threads": 1.5}, UsageError, "option 'threads' is 1.5; give a whole number"),
        ({"spin": "maybe"}, UsageError, "option 'spin' is 'maybe'; give true or false"),
    ],
)
def test_refuses_what_an_option_cannot_be(options, kind, text):
    """Each error names the option, the value and what to give."""
    with pytest.raises(kind) as caught:
        check_options(RULES, options)
    assert str(caught.value).startswith(text)


def test_refuses_a_precision_that_is_not_offered():
    """The error names the backend, the precision and what is offered."""
    with pytest.raises(PrecisionError) as caught:
        check_precision_offered("toy", "int8", {"fp32", "bf16"})
    assert str(caught.value) == "backend 'toy' cannot compute in int8 on this machine; it offers: bf16, fp32"


@pytest.mark.parametrize(
    ("spec", "said"), [({"profiles": ({},)}, "narrower profiles"), ({"values": {"x": None}}, "values")]
)
def test_profiles_are_refused_where_they_would_be_ignored(small_model, tmp_path, spec, said):
    """A backend that is not built for ranges says so, instead of leaving them out in silence."""
    with pytest.raises(UsageError, match=rf"reference takes no .*{said}.*; leave them out"):
        engine.build(small_model, BuildSpec(**spec), tmp_path / "x.engine", backend="reference")
