"""``enginery inspect``: what is in an engine folder or a graph."""

from __future__ import annotations

import rich_click as click

from enginery.cli import options

__all__ = ["command"]


@click.command("inspect")
@click.argument("path")
@click.option("--layers", is_flag=True, help="List an engine's layers: precision, formats, ONNX nodes and modules.")
@options.as_json
def command(path: str, *, layers: bool, as_json: bool) -> None:
    """Show what is in an engine or a graph: tensors, profiles, precision, versions, sizes.

    PATH is an engine folder or an ONNX file.

    Example: enginery inspect model.engine --layers
    """
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
