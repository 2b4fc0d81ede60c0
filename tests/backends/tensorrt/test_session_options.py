"""Options of an opened engine: what a session may change, and what only a build can follow."""

from __future__ import annotations

import pytest

from enginery.backends.tensorrt.options import RULES, SESSION_OPTIONS, read_options, read_session_options
from enginery.errors import UnknownNameError, UsageError


def test_session_options_stand_over_the_manifests():
    """What the manifest says stays otherwise; to say it again is no contradiction."""
    found = read_session_options({"refit": "yes", "contexts": 2}, {"contexts": "4", "refit": "yes", "device": 1})
    assert (found["contexts"], found["refit"], found["device"]) == (4, "yes", 1)
    assert found.keys() == RULES.keys()
    assert set(RULES) >= SESSION_OPTIONS


def test_what_only_a_build_can_follow_is_not_ignored():
    """The message has both values, the mend the build's option."""
    with pytest.raises(UsageError, match=r"'refit' is for building: .* 'no', and 'yes' was asked .*option refit="):
        read_session_options({}, {"refit": "yes"})
    with pytest.raises(UnknownNameError, match="context"):
        read_session_options({}, {"context": 2})


def test_only_precisions_may_stand_in():
    """A word that is none is refused before a build, with the nearest."""
    assert read_options({"allow_precision": "fp32, tf32"})["allow_precision"] == "fp32, tf32"
    with pytest.raises(UnknownNameError, match=r"precision of option 'allow_precision': 'fp61'.* 'fp16'"):
        read_options({"allow_precision": "fp32,fp61"})
