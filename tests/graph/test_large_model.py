"""A model larger than any protobuf, on its way to an engine."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "large_model.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the memory of processes is read from /proc")
def test_memory_stays_below_twice_the_weights(tmp_path):
    """2.5 GiB of weights go through export, simplify and build, and no process ever holds them twice."""
    spec = importlib.util.spec_from_file_location("large_model", BENCHMARK)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    found = benchmark.run(tmp_path / "large", benchmark.LAYERS, benchmark.WIDTH)
    assert found["weights_bytes"] == 2.5 * 2**30
    assert len(found["commands"]) == 4
    for name, peaks in found["commands"].items():
        assert 0 < peaks["resident_process_bytes"] < 2 * found["weights_bytes"], name
        assert peaks["proportional_sum_bytes"] < 2 * found["weights_bytes"], name
        assert peaks["anonymous_sum_bytes"] < found["weights_bytes"], name
