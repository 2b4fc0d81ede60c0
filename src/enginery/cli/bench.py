"""``enginery bench``: how long calls take."""

from __future__ import annotations

from typing import Any, Literal

import rich_click as click

from enginery.cli import options
from enginery.spec import BenchSpec, Option

__all__ = ["command"]


@click.command("bench")
@click.argument("engines", nargs=-1, required=True, metavar="ENGINE...")
@click.option("--at", type=click.Choice(["min", "opt", "max"]), default="opt", show_default=True,
              help="Which end of the profile is timed.")  # fmt: skip
@options.data
@options.ranges
@options.option
@options.time_limit(BenchSpec.limit_s, "Most time spent on timing one engine.")
@options.as_json
def command(
    engines: tuple[str, ...],
    *,
    at: Literal["min", "opt", "max"],
    data: str | None,
    ranges: dict[str, Any],
    options: dict[str, Option],
    limit_s: float,
    as_json: bool,
) -> None:
    """Time engines against each other: each in a process of its own, taking turns.

    Example: enginery bench one.engine other.engine
    """
    spec = BenchSpec(limit_s=limit_s)
    from enginery import steps
    from enginery.cli.output import emit, working
    from enginery.reports.text import bench_text

    with working() as progress:
        records = steps.bench(engines, at=at, data=data, ranges=ranges, options=options, spec=spec, progress=progress)
    emit(records, lambda style: bench_text(records, style), as_json=as_json)
