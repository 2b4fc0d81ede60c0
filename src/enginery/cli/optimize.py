"""``enginery optimize``: the whole way, from a trained model to the fastest engine that is accurate enough."""

from __future__ import annotations

from typing import Any

import rich_click as click

from enginery.cli import options
from enginery.spec import Example, OptimizeSpec, VerifySpec

__all__ = ["command"]


@click.command("optimize", cls=options.SourceCommand)
@click.argument("source")
@options.output("FOLDER", "Where the engine goes. Default: the source's name with .engine, here.")
@options.shapes
@options.source_options
@options.precisions
@options.precision_plan
@options.max_error
@options.min_cosine
@options.max_drop
@options.objective
@options.max_latency
@options.backends
@options.environment
@options.data
@options.calibration
@options.calibration_method
@options.ranges
@options.seed
@options.search_limit
@options.resume
@options.no_simplify
@options.time_limit(600.0, "Most time that one build, verification or timing may take.")
@options.as_json
def command(
    source: str,
    *,
    output: str | None,
    examples: tuple[Example, ...],
    signature: str | None,
    weights: str | None,
    make_dynamic: tuple[str, ...],
    output_names: tuple[str, ...],
    data: str | None,
    ranges: dict[str, Any],
    as_json: bool,
    **asked: Any,
) -> None:
    """Build, verify and time every candidate; save the fastest that is accurate enough.

    SOURCE is one of: {sources}.

    Example: enginery optimize model.onnx --shapes "input=1..8..32x3x224x224" --data heldout.npz
    """
    spec = _spec(**asked)
    from enginery import pipeline
    from enginery.cli.output import emit, working
    from enginery.reports.layout import Style, join
    from enginery.reports.text import next_steps_text, optimize_text

    with working() as progress:
        result = pipeline.optimize(
            source, spec=spec, output=output, data=data, ranges=ranges, examples=examples, signature=signature,
            weights=weights, make_dynamic=make_dynamic, output_names=output_names, progress=progress,
        )  # fmt: skip

    def text(style: Style) -> str:
        return join(optimize_text(result.record, style), next_steps_text(result.record, style))

    emit(result.record, text, as_json=as_json)


def _spec(
    *,
    max_error: float | None,
    min_cosine: float | None,
    max_drop: dict[str, float],
    seed: int,
    limit_s: float,
    **asked: Any,
) -> OptimizeSpec:
    verify = VerifySpec.of(max_error, min_cosine=min_cosine, max_drop=max_drop, seed=seed)
    if not asked["environments"]:  # another environment may have backends that this one has not
        for name in asked["backends"]:
            options.check_backend(name)
    return OptimizeSpec(job_limit_s=limit_s, verify=verify, **asked)
