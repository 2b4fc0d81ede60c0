"""Record → text. Each function takes a record and a `Style` and returns lines for a terminal, a file or a pipe."""

from __future__ import annotations

from enginery.reports.bench_report import bench_text
from enginery.reports.doctor_report import doctor_text
from enginery.reports.dry_run_report import dry_run_text
from enginery.reports.engine_report import build_text, engine_text
from enginery.reports.graph_report import export_text, graph_text
from enginery.reports.layers_report import layers_text
from enginery.reports.layout import PLAIN, Style
from enginery.reports.optimize_report import next_steps_text, optimize_text
from enginery.reports.outputs_report import outputs_text
from enginery.reports.profile_report import profile_text
from enginery.reports.search_report import search_text, sensitivity_text
from enginery.reports.verify_report import verify_text

__all__ = [
    "PLAIN",
    "Style",
    "bench_text",
    "build_text",
    "doctor_text",
    "dry_run_text",
    "engine_text",
    "export_text",
    "graph_text",
    "layers_text",
    "next_steps_text",
    "optimize_text",
    "outputs_text",
    "profile_text",
    "search_text",
    "sensitivity_text",
    "verify_text",
]
