"""The table of `optimize`: every candidate, what it costs, how far off it is, and why it was not chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from enginery.records import BenchRecord, CandidateRecord, MachineRecord, OptimizeRecord, VerifyRecord
from enginery.reports import figures
from enginery.reports.layout import PLAIN, Column, Style, facts, footnotes, join, paragraph, table
from enginery.reports.search_report import search_text
from enginery.spec import HERE

__all__ = ["machine_line", "next_steps_text", "optimize_text", "speed_up"]

_PLAIN_BACKEND = "onnxruntime"
_BOUNDS = ("cosine at least", "drop of")


def optimize_text(record: OptimizeRecord, style: Style = PLAIN) -> str:
    """Render what `optimize` found.

    One row for each candidate and each baseline; the chosen one is marked. Every reason stands under the table in
    full, by its number, and under that what was compared with what, on which inputs and on which machine.

    Args:
        record: what `optimize` found.
        style: width and colour.
    """
    compared = _Compared.of(record)
    notes: list[str] = []
    sharing = _sharing(record.candidates)
    rows = [_row(candidate, compared, notes, sharing) for candidate in record.candidates]
    columns = _columns()
    shown = [at for at, column in enumerate(columns) if column.title in _ALWAYS or any(_told(row[at]) for row in rows)]
    drawn = table(
        [columns[at] for at in shown],
        [[row[at] for at in shown] for row in rows],
        style,
        marked=[at for at, row in enumerate(record.candidates) if row.status == "chosen"],
    )
    searches = [search_text(search, style, steps=False) for search in record.searches]
    return join(
        paragraph(_headline(record), style), drawn, footnotes(notes, style), *searches,
        facts(_facts(record, compared), style), paragraph(record.words, style) if record.words else "",
    )  # fmt: skip


def next_steps_text(record: OptimizeRecord, style: Style = PLAIN) -> str:
    """Say where the engine is and how to run it, from the shell and from Python."""
    inputs = " ".join(f"{info.name}={info.name}.npy" for info in record.graph.inputs)
    chosen = next(row for row in record.candidates if row.label == record.chosen)
    python = record.spec.get("environments", {}).get(chosen.environment)
    command = f"{python} -m enginery" if python else "enginery"
    return facts(
        [
            ("engine", record.engine),
            ("run it", f"{command} run {record.engine} {inputs} -o outputs.npz"),
            ("in Python", f'enginery.load("{record.engine}").run(feeds)'),
        ],
        style,
    )


def speed_up(baseline: BenchRecord | None, bench: BenchRecord | None) -> float | None:
    """Return how many times as fast as the baseline a benchmark was, by rows for each second; None without both."""
    if baseline is None or bench is None or baseline.throughput <= 0:
        return None
    return bench.throughput / baseline.throughput


def machine_line(record: MachineRecord) -> str:
    """Describe a machine in one line."""
    parts = [record.cpu, figures.plural(record.cores, "core"), f"{figures.byte_size(record.memory_bytes)} of memory"]
    return ", ".join([*parts, *record.gpus, record.system, f"Python {record.python}"])


@dataclass(frozen=True)
class _Compared:
    """The two baselines, where they were timed."""

    source: CandidateRecord | None
    plain: CandidateRecord | None

    @classmethod
    def of(cls, record: OptimizeRecord) -> _Compared:
        timed = [row for row in record.candidates if row.role == "baseline"]
        plain = next((row for row in timed if row.backend == _PLAIN_BACKEND), None)
        return cls(next((row for row in timed if row is not plain), None), plain)


_ALWAYS = ("candidate", "p50 ms", "status")


def _columns() -> list[Column]:
    return [
        Column("", rank=0),
        Column("candidate", wraps=True),
        Column("precision", rank=5),
        Column("p50 ms", right=True),
        Column("rows/s", right=True, rank=4),
        Column("vs source", right=True, rank=2),
        Column("vs ORT", right=True, rank=1),
        Column("error", right=True),
        Column("accuracy", right=True, rank=1),
        Column("size", right=True, rank=3),
        Column("status"),
    ]


def _row(
    row: CandidateRecord, compared: _Compared, notes: list[str], sharing: Mapping[str, Sequence[str]]
) -> list[str]:
    bench, verify = row.bench, row.verify
    return [
        ">" if row.status == "chosen" else "",
        row.label,
        _precision(row),
        figures.median_ms(bench) if bench else figures.NOTHING,
        figures.integer(bench.throughput) if bench else figures.NOTHING,
        figures.ratio(speed_up(_bench(compared.source), bench)),
        figures.ratio(speed_up(_bench(compared.plain), bench)),
        figures.error(verify.error) if verify else figures.NOTHING,
        figures.percent(verify.accuracy) if verify else figures.NOTHING,
        figures.byte_size(row.build.size_bytes) if row.build else figures.NOTHING,
        _status(row, notes, sharing),
    ]


def _precision(row: CandidateRecord) -> str:
    """Say what was asked for, and beside it what was read back where that is not the same throughout."""
    built = row.build.precision_built if row.build else {}
    if set(built) <= {row.precision}:
        return row.precision
    said = "+".join(f"{number} {word}" if number else word for word, number in built.items())
    return f"{row.precision} ({said})"


def _bench(row: CandidateRecord | None) -> BenchRecord | None:
    return row.bench if row is not None else None


def _sharing(rows: Sequence[CandidateRecord]) -> dict[str, list[str]]:
    """Return the labels of the rows by their reason: variants of a candidate tend to fail alike."""
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row.reason, []).append(row.label)
    return found


def _status(row: CandidateRecord, notes: list[str], sharing: Mapping[str, Sequence[str]]) -> str:
    if not row.reason:
        return row.status
    note = f"{', '.join(sharing[row.reason])}: {row.reason}"
    if note not in notes:
        notes.append(note)
    return f"{row.status} [{notes.index(note) + 1}]"


def _told(cell: str) -> bool:
    return cell not in ("", figures.NOTHING)


def _headline(record: OptimizeRecord) -> str:
    tried = [row for row in record.candidates if row.role == "candidate"]
    good = [row for row in tried if row.status in ("chosen", "accepted")]
    said = f"{figures.plural(len(tried), 'candidate')} in {figures.duration(record.seconds)}, {len(good)} good enough"
    return f"{record.source}: {said}; chosen: {record.chosen}"


def _facts(record: OptimizeRecord, compared: _Compared) -> list[tuple[str, str]]:
    verified = next((row.verify for row in _first(record, "verify") if row.verify), None)
    timed = next((row.bench for row in _first(record, "bench") if row.bench), None)
    accuracy = verified.reference_accuracy if verified else None
    reference = f"{verified.reference}, on {verified.inputs}" if verified else ""
    return [
        ("error", f"against {reference}; {_bounds(verified)}" if verified else ""),
        ("accuracy", f"of the reference: {figures.percent(accuracy)}" if accuracy is not None else ""),
        ("timed", _timed(timed) if timed else ""),
        ("baselines", _baselines(compared)),
        ("graph", _graph(record)),
        ("machine", machine_line(record.machine)),
        ("versions", _versions(record.candidates)),
        ("unstable", _unstable(record.candidates)),
        *(("note", note) for note in dict.fromkeys((*record.notes, *_notes(record.candidates)))),
    ]


def _bounds(verified: VerifyRecord) -> str:
    """Say which bounds the outputs were held against."""
    said = [] if verified.max_error == math.inf else [f"at most {figures.error(verified.max_error)}"]
    return ", ".join([*said, *(check.name for check in verified.checks if check.name.startswith(_BOUNDS))])


def _versions(rows: Sequence[CandidateRecord]) -> str:
    """Name the version of each backend that built something, environment by environment."""
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        if row.build:
            found.setdefault(row.environment, {})[row.backend] = row.build.backend_version
    said = {
        name: ", ".join(f"{backend} {version}" for backend, version in versions.items())
        for name, versions in found.items()
    }
    return "; ".join(versions if name == HERE else f"@{name}: {versions}" for name, versions in said.items())


def _first(record: OptimizeRecord, what: str) -> list[CandidateRecord]:
    """Return the rows that have it, the chosen one first."""
    rows = [row for row in record.candidates if getattr(row, what) is not None]
    return sorted(rows, key=lambda row: row.status != "chosen")


def _timed(bench: BenchRecord) -> str:
    shapes = ", ".join(f"{name} {figures.shape(sizes)}" for name, sizes in bench.shapes.items())
    return f"{shapes} (batch {bench.batch}); median of the calls, ± half its 95 % confidence interval"


def _baselines(compared: _Compared) -> str:
    said = []
    if compared.source is not None:
        said.append(f"source framework = {compared.source.label}")
    if compared.plain is not None:
        said.append(f"ORT = {compared.plain.label}")
    return "; ".join(said)


def _graph(record: OptimizeRecord) -> str:
    size = f"{figures.count(record.graph.parameters)} parameters, {figures.byte_size(record.graph.parameter_bytes)}"
    if record.simplify is None:
        return f"{figures.plural(record.graph.nodes, 'node')}, {size}"
    return f"{record.simplify.nodes_before} nodes, {record.simplify.nodes_after} after simplification, {size}"


def _notes(rows: Sequence[CandidateRecord]) -> list[str]:
    verified = [note for row in rows if row.verify for note in row.verify.notes]
    return verified + [note for row in rows if row.bench and row.bench.load for note in row.bench.load.notes]


def _unstable(rows: Sequence[CandidateRecord]) -> str:
    names = [row.label for row in rows if row.bench and not row.bench.stable]
    return f"~ marks medians that did not settle within the time limit: {', '.join(names)}" if names else ""
