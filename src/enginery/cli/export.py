"""``enginery export``: a trained model becomes an ONNX file."""

from __future__ import annotations

from typing import Any

import rich_click as click

from enginery.cli import options
from enginery.spec import PrecisionPlan, Shape

__all__ = ["command"]


@click.command("export", cls=options.SourceCommand)
@click.argument("source")
@options.output("FILE.onnx", "The ONNX file to write; large weights go beside it.", required=True)
@options.shapes
@options.source_options
@click.option("--opset", type=click.IntRange(min=1), metavar="NUMBER", help="Version of ONNX's operator set.")
@click.option("--simplify", is_flag=True, help="Simplify the graph as well.")
@click.option(
    "--precision", type=click.Choice(["fp16", "bf16"]), help="Write the graph with these types; default: its own."
)
@options.precision_plan
@click.option("--convert-io", is_flag=True, help="Give inputs and outputs the precision's type too.")
@options.as_json
def command(
    source: str,
    *,
    output: str,
    shapes: dict[str, Shape],
    opset: int | None,
    simplify: bool,
    precision: str | None,
    plan: PrecisionPlan | None,
    convert_io: bool,
    as_json: bool,
    **said_of_source: Any,
) -> None:
    """Turn a trained model into an ONNX file.

    SOURCE is one of: {sources}.

    Example: enginery export net.py:make -o net.onnx --example "input:float32[1,3,224,224]"
    """
    from enginery import steps
    from enginery.cli.output import emit, working
    from enginery.reports.text import export_text

    with working() as progress:
        record = steps.export(
            source, output, shapes=shapes, opset=opset, simplify=simplify, precision=precision, plan=plan,
            convert_io=convert_io, progress=progress, **said_of_source,
        )  # fmt: skip
    emit(record, lambda style: export_text(record, output, style), as_json=as_json)
