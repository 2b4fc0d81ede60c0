"""``enginery build``: one engine with one backend."""

from __future__ import annotations

from typing import Any

import rich_click as click
from click.exceptions import Exit

from enginery.cli import options
from enginery.errors import BuildError
from enginery.spec import Option, PrecisionPlan, Shape

__all__ = ["command"]


@click.command("build", cls=options.SourceCommand)
@click.argument("source")
@options.output("FOLDER", "The engine folder to write; an engine that stands there is replaced.")
@click.option(
    "--dry-run", is_flag=True, help="Say what would not convert, and build nothing; exit code 42 where it would not."
)
@options.backend
@options.shapes
@options.profiles
@options.values
@options.source_options
@options.precision
@options.precision_plan
@options.calibration
@options.calibration_method
@options.weight_bits
@options.option
@options.no_simplify
@options.in_process
@options.time_limit(600.0, "Most time the build may take.")
@options.as_json
def command(
    source: str,
    *,
    output: str | None,
    dry_run: bool,
    backend: str | None,
    shapes: dict[str, Shape],
    profiles: tuple[dict[str, Shape], ...],
    values: dict[str, Shape],
    precision: str | None,
    plan: PrecisionPlan | None,
    calibration: str | None,
    calibration_method: str,
    weight_bits: int | None,
    options: dict[str, Option],
    simplify: bool,
    in_process: bool,
    limit_s: float,
    as_json: bool,
    **said_of_source: Any,
) -> None:
    """Build one engine with one backend, in a worker process.

    SOURCE is one of: {sources}.

    Example: enginery build model.onnx -o model.engine --backend openvino --option threads=2
    """
    asked: dict[str, Any] = {
        "backend": backend, "shapes": shapes, "profiles": profiles, "values": values, "precision": precision,
        "plan": plan, "calibration": calibration, "calibration_method": calibration_method, "weight_bits": weight_bits,
        "options": options, "simplify": simplify, "in_process": in_process, "limit_s": limit_s,
        **said_of_source,
    }  # fmt: skip
    if dry_run:
        _dry_run(source, asked, as_json=as_json)
        return
    if output is None:
        raise click.UsageError("Missing option '-o' / '--output'.")
    from enginery import steps
    from enginery.cli.output import emit, working
    from enginery.reports.text import build_text

    with working() as progress:
        engine = steps.build(source, output, progress=progress, **asked)
    emit(engine.manifest, lambda style: build_text(engine.manifest, output, style), as_json=as_json)


def _dry_run(source: str, asked: dict[str, Any], *, as_json: bool) -> None:
    """Print what would become of the build, and leave with the code of a failed one where it would fail."""
    from enginery.cli.output import emit, working
    from enginery.dry_running import dry_run
    from enginery.reports.text import dry_run_text

    with working() as progress:
        record = dry_run(source, progress=progress, **asked)
    emit(record, lambda style: dry_run_text(record, style), as_json=as_json)
    if not record.converts:
        raise Exit(BuildError.exit_code)
