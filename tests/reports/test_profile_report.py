"""Where a call spends its time, as text."""

from __future__ import annotations

from enginery.records import LayerTimeRecord, ProfileRecord
from enginery.reports.profile_report import profile_text


def record(layers):
    """Return a profile with that many layers, the first the fastest."""
    times = [LayerTimeRecord(f"layer{at}", 10.0 * at, float(at), float(at)) for at in range(1, layers + 1)]
    return ProfileRecord(10, {"x": (1, 3)}, 0.25, 0.02, 0.5, 0.01, tuple(times))


def test_parts_and_layers_the_slowest_first():
    """Shares are of the layers' sum."""
    text = profile_text(record(4))
    assert "0.2500 ms of the host, without a CUDA graph" in text
    assert "0.5000 ms of the device" in text
    lines = text.splitlines()
    first = next(line for line in lines if "layer4" in line)
    assert "4.0000" in first
    assert "40.0%" in first
    assert lines.index(first) < lines.index(next(line for line in lines if "layer1" in line))
    assert "Medians of 10 calls" in text


def test_many_layers_are_summed_up():
    """Twenty are shown, the others counted."""
    text = " ".join(profile_text(record(25)).split())
    assert "5 more layers take 4.6% together" in text
    assert "layer5 " not in text


def test_without_layers_only_the_parts():
    """An engine that reports none has parts all the same."""
    assert "copies out" in profile_text(record(0))
