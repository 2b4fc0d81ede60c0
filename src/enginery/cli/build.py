"""``enginery build``: one engine with one backend."""

from __future__ import annotations

from typing import Any

import rich_click as click

from enginery.cli import options
from enginery.spec import Option, Shape

__all__ = ["command"]


@click.command("build", cls=options.SourceCommand)
@click.argument("source")
@options.output("FOLDER", "The engine folder to write; an engine that stands there is replaced.", required=True)
@options.backend
@options.shapes
@options.source_options
@options.precision
@options.option
@options.no_simplify
@options.in_process
@options.time_limit(600.0, "Most time the build may take.")
@options.as_json
def command(
    source: str,
    *,
    output: str,
    backend: str | None,
    shapes: dict[str, Shape],
    precision: str,
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
    from enginery import steps
    from enginery.cli.output import emit, working
    from enginery.reports.text import build_text

    with working() as progress:
        engine = steps.build(
            source, output, backend=backend, shapes=shapes, precision=precision, options=options, simplify=simplify,
            in_process=in_process, limit_s=limit_s, progress=progress, **said_of_source,
        )  # fmt: skip
    emit(engine.manifest, lambda style: build_text(engine.manifest, output, style), as_json=as_json)
