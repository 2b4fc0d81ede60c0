"""``enginery verify``: an engine against what it was built from."""

from __future__ import annotations

import math
from typing import Any

import rich_click as click

from enginery.cli import options
from enginery.errors import VerifyError
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
    as_json: bool,
    **said_of_source: Any,
) -> None:
    """Compare the outputs of ENGINE with those of SOURCE, on data or on random inputs.

    Leaves with exit code 80 when an output is further off than the bound, or a check fails.

    Example: enginery verify model.engine model.onnx --max-error 0.001
    """
    spec = VerifySpec.of(max_error, min_cosine=min_cosine, max_drop=max_drop, seed=seed)
    from enginery import steps
    from enginery.cli.output import emit, working
    from enginery.reports.text import verify_text

    with working() as progress:
        record = steps.verify(engine, source, data=data, ranges=ranges, spec=spec, progress=progress, **said_of_source)
    emit(record, lambda style: verify_text(record, style), as_json=as_json)
    if not record.passed:
        near = math.isfinite(record.error) and all(check.passed is not False for check in record.checks)
        mend = "raise --max-error if that is near enough, or build with a higher precision"
        if not near:
            mend = "look at what failed above; was the engine built from this source?"
        raise VerifyError(f"{engine} does not agree with {source}: {record.reason}", mend=mend)
