"""``enginery verify``: an engine against what it was built from."""

from __future__ import annotations

import math
from typing import Any

import rich_click as click

from enginery.cli import options
from enginery.errors import UsageError, VerifyError
from enginery.spec import VerifySpec

__all__ = ["command"]


@click.command("verify")
@click.argument("engine")
@click.argument("source")
@options.max_error
@options.min_cosine
@options.max_drop
@options.data
@options.ranges
@options.source_options
@options.seed
@click.option(
    "--against", type=options.PathText(), metavar="PATH",
    help="Compare with this instead of SOURCE: another engine of it, or the float32 original of a typed file.",
)  # fmt: skip
@click.option(
    "--layers", is_flag=True,
    help="Where an output is further off than the bound, look for the first node that is, by building parts.",
)  # fmt: skip
@options.calibration
@options.calibration_method
@options.output("FOLDER", "With --layers: where the smallest model that shows it goes. [default: divergence]")
@options.as_json
def command(
    engine: str,
    source: str,
    *,
    max_error: float | None,
    min_cosine: float | None,
    max_drop: dict[str, float],
    data: str | None,
    ranges: dict[str, Any],
    seed: int,
    against: str | None,
    layers: bool,
    calibration: str | None,
    calibration_method: str,
    output: str | None,
    as_json: bool,
    **said_of_source: Any,
) -> None:
    """Compare the outputs of ENGINE with those of SOURCE, on data or on random inputs.

    Leaves with exit code 80 when an output is further off than the bound, or a check fails.

    With --layers, it then looks for the first node that is off, and writes the smallest model that shows it: parts of
    the graph are built with the engine's backend, precision and options, about ten for a thousand nodes.

    Example: enginery verify model.engine model.onnx --max-error 0.001
    """
    if output is not None and not layers:
        raise UsageError("-o names a folder for what --layers finds", mend="give --layers too, or leave -o out")
    spec = VerifySpec.of(max_error, min_cosine=min_cosine, max_drop=max_drop, seed=seed)
    from enginery import steps
    from enginery.cli.output import emit, working
    from enginery.reports.text import verify_text

    with working() as progress:
        record = steps.verify(
            engine, source, data=data, ranges=ranges, spec=spec, against=against, layers=layers,
            output=output or "divergence", calibration=calibration,
            calibration_method=calibration_method, progress=progress, **said_of_source,
        )  # fmt: skip
    emit(record, lambda style: verify_text(record, style), as_json=as_json)
    if not record.passed:
        near = math.isfinite(record.error) and all(check.passed is not False for check in record.checks)
        mend = "raise --max-error if that is near enough, or build with a higher precision"
        if not near:
            mend = "look at what failed above; was the engine built from this source?"
        if record.divergence is not None and record.divergence.smallest is not None:
            mend = f"look at {record.divergence.smallest.folder}; this shows it: {record.divergence.smallest.commands}"
        raise VerifyError(f"{engine} does not agree with {against or source}: {record.reason}", mend=mend)
