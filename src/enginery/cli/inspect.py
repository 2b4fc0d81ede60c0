"""``enginery inspect``: what is in an engine folder or a graph, and how a model bears a narrower type."""

from __future__ import annotations

from typing import Any

import rich_click as click

from enginery.cli import options
from enginery.errors import UsageError

__all__ = ["command"]


@click.command("inspect")
@click.argument("path")
@click.option("--layers", is_flag=True, help="List an engine's layers: precision, formats, ONNX nodes and modules.")
@click.option(
    "--sensitivity", metavar="PRECISION", help="Rank a model's nodes by what fp16 or bf16 would do to them, on --data."
)
@options.shapes
@options.data
@options.ranges
@options.source_options
@options.as_json
@click.pass_context
def command(
    context: click.RichContext, /, path: str, *, layers: bool, sensitivity: str | None, as_json: bool, **said: Any
) -> None:
    """Show what is in an engine or a graph: tensors, profiles, precision, versions, sizes.

    PATH is an engine folder or an ONNX file; with --sensitivity, any trained model.

    Example: enginery inspect model.engine --layers
    """
    if sensitivity is not None:
        _show_sensitivity(path, sensitivity, as_json=as_json, **said)
        return
    if given := [name for name, value in said.items() if value]:
        flags = {param.name: param.opts[0] for param in context.command.params}
        raise UsageError(f"{flags[given[0]]} says nothing without --sensitivity", mend="give both, or neither")
    _show(path, layers=layers, as_json=as_json)


def _show(path: str, *, layers: bool, as_json: bool) -> None:
    from enginery import steps
    from enginery.cli.output import emit, to_stderr
    from enginery.records import GraphRecord
    from enginery.reports.layout import Style
    from enginery.reports.text import engine_text, graph_text, layers_text

    if layers:
        with to_stderr():
            found = steps.inspect_layers(path)
        emit(found, lambda style: layers_text(found, style), as_json=as_json)
        return
    with to_stderr():
        record = steps.inspect(path)

    def text(style: Style) -> str:
        return graph_text(record, style) if isinstance(record, GraphRecord) else engine_text(record, style)

    emit(record, text, as_json=as_json)


def _show_sensitivity(path: str, precision: str, *, as_json: bool, **said: Any) -> None:
    from enginery import sensing
    from enginery.cli.output import emit, working
    from enginery.reports.text import sensitivity_text

    with working() as progress:
        record = sensing.inspect_sensitivity(path, precision, progress=progress, **said)
    emit(record, lambda style: sensitivity_text(record, style), as_json=as_json)
