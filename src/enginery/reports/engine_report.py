"""What an engine folder holds, and how it was built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from enginery.records import BenchRecord, ManifestRecord, PartRecord, TargetRecord, VerifyRecord
from enginery.reports import figures
from enginery.reports.graph_report import tensors_table
from enginery.reports.layout import PLAIN, Column, Style, facts, join, table
from enginery.reports.optimize_report import machine_line
from enginery.spec import Option, Shape

__all__ = ["build_text", "engine_text", "parts_table"]

_SHORT_HASH = 12


def engine_text(record: ManifestRecord, style: Style = PLAIN) -> str:
    """Render an engine's manifest: tensors, profiles, precision, versions, files, and what was measured."""
    said = facts(
        [
            ("engine", record.name),
            ("backend", f"{record.backend} {record.backend_version}"),
            ("precision", _precision(record)),
            ("options", _options(record)),
            ("runs on", _target(record.target)),
            ("built from", _hashed(record.source, record.source_sha256)),
            *((f"profile {number}", _ranges(one)) for number, one in enumerate(record.profiles, 1)),
            ("values", _ranges(record.values)),
            ("graph", f"SHA-256 {record.graph_sha256[:_SHORT_HASH]}" if record.graph_sha256 else ""),
            ("built by", f"Enginery {record.enginery}, {record.created}"),
            ("built on", machine_line(record.machine)),
            ("open with", f"{record.interpreter}, environment {record.environment!r}" if record.interpreter else ""),
            ("verified", _verified(record.verify)),
            ("timed", _timed(record.bench)),
            *(("note", note) for note in (record.build.notes if record.build else ())),
        ],
        style,
    )
    files = table(
        [Column("file", wraps=True), Column("size", right=True), Column("SHA-256")],
        [[name, figures.byte_size(file.bytes), file.sha256[:_SHORT_HASH]] for name, file in record.files.items()],
        style,
    )
    parts = record.build.parts if record.build else ()
    return join(
        said,
        tensors_table(record.inputs, record.outputs, style),
        parts_table(parts, style),
        files if record.files else "",
    )


def parts_table(parts: Sequence[PartRecord], style: Style = PLAIN) -> str:
    """Render what runs where, in order; empty where one backend runs all."""
    if not parts:
        return ""
    columns = [
        Column("part", right=True),
        Column("runs on"),
        Column("nodes", right=True),
        Column("operators", wraps=True),
        Column("reads", wraps=True, rank=1),
        Column("handed over", right=True),
        Column("size", right=True, rank=2),
    ]
    rows = [
        [
            str(number),
            part.label,
            str(len(part.nodes)),
            ", ".join(f"{name} ({count})" for name, count in part.operators.items()),
            ", ".join(info.name for info in part.inputs),
            "unknown" if part.handed_over_bytes is None else figures.byte_size(part.handed_over_bytes),
            figures.byte_size(part.size_bytes),
        ]
        for number, part in enumerate(parts)
    ]
    return table(columns, rows, style)


def build_text(record: ManifestRecord, folder: str, style: Style = PLAIN) -> str:
    """Render how an engine was built, and where it is."""
    build = record.build
    return facts(
        [
            ("engine", folder),
            ("backend", f"{record.backend} {record.backend_version}"),
            ("precision", _precision(record)),
            ("options", _options(record)),
            ("runs on", _target(record.target)),
            ("size", figures.byte_size(build.size_bytes) if build else ""),
            ("took", figures.duration(build.seconds) if build else ""),
            ("memory", f"{figures.byte_size(build.peak_memory_bytes)} at most" if build else ""),
            *(("note", note) for note in (build.notes if build else ())),
        ],
        style,
    )


def _options(record: ManifestRecord) -> str:
    """Write the options that ask for something; those that are off stand in the manifest alone."""
    off: tuple[Option, ...] = (False, 0, -1, "", "no", "none")
    asking = {name: value for name, value in record.options.items() if value not in off}
    return figures.options(asking) or "defaults"


def _target(record: TargetRecord | None) -> str:
    if record is None:
        return ""
    capabilities = f"compute capability {', '.join(record.compute_capabilities)}" if record.compute_capabilities else ""
    found = ", ".join(part for part in (record.gpu, capabilities) if part)
    return found or f"the GPUs that {record.library} {record.version} builds for by itself"


def _ranges(shapes: Mapping[str, Shape]) -> str:
    return ", ".join(f"{name}={shape}" for name, shape in shapes.items())


def _precision(record: ManifestRecord) -> str:
    """Say what was asked for, node by node where nodes differ, and what was read back."""
    planned = record.build.planned if record.build else {}
    mixed = ", ".join(f"{word} ({figures.plural(number, 'node')})" for word, number in planned.items())
    asked = f"{record.precision}: {mixed}" if len(planned) > 1 else record.precision
    return f"asked for {asked}; built {_counted(record.precision_built) or 'unknown'}"


def _counted(built: Mapping[str, int]) -> str:
    """Write the precisions found with how many operators run in each; a backend that cannot count says 0."""
    return ", ".join(f"{name} ({figures.plural(number, 'operator')})" if number else name
                     for name, number in built.items())  # fmt: skip


def _hashed(name: str, sha256: str) -> str:
    return f"{name} (SHA-256 {sha256[:_SHORT_HASH]})" if sha256 else name


def _verified(record: VerifyRecord | None) -> str:
    if record is None:
        return "no"
    outcome = "passed" if record.passed else f"failed: {record.reason}"
    return f"{outcome}; error {figures.error(record.error)} against {record.reference}, on {record.inputs}"


def _timed(record: BenchRecord | None) -> str:
    if record is None:
        return "no"
    shapes = ", ".join(f"{name} {figures.shape(sizes)}" for name, sizes in record.shapes.items())
    return f"{figures.median_ms(record)} ms, {figures.integer(record.throughput)} rows/s at {shapes}"
