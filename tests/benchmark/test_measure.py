"""One session timed in this process."""

from __future__ import annotations

import numpy as np
import pytest

from enginery.backends import engine
from enginery.benchmark.measure import measure
from enginery.errors import InputNameError
from enginery.spec import BenchSpec, BuildSpec, parse_shapes

SPEC = BenchSpec(warmup_ms=1, turn_ms=2, min_samples=3, min_turns=3, stable_within=10, limit_s=1)


@pytest.fixture
def session(tmp_path, small_model):
    """Open a null engine with the batch 1 to 4."""
    built = engine.build(small_model, BuildSpec(parse_shapes(["x=1..4x4"])), tmp_path / "null.engine", backend="null")
    with built.open() as opened:
        yield opened


def test_measure_fills_the_record(session):
    """Shapes, batch, the first call and the placement are told beside the figures."""
    record = measure(session, {"x": np.zeros((4, 4), np.float32)}, SPEC, load_ms=5.0)
    assert (record.shapes, record.batch, record.placement, record.load_ms) == ({"x": (4, 4)}, 4, "nowhere", 5.0)
    assert record.stable
    assert len(record.turns_ms) == 3
    assert 0 < record.min_ms <= record.ci_low_ms <= record.p50_ms <= record.ci_high_ms
    assert record.first_call_ms > 0
    assert record.load.cpus >= 1


def test_bad_feeds_are_told(session):
    """A session's own errors come through."""
    with pytest.raises(InputNameError, match="unknown input 'y'"):
        measure(session, {"y": np.zeros(3, np.float32)}, SPEC)
