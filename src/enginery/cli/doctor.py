"""``enginery doctor``: what is here, what is missing, and the line that mends it."""

from __future__ import annotations

import rich_click as click

from enginery.cli import options

__all__ = ["command"]

_STEP = "import every library"
_EXPECTED_S = 8.0


@click.command("doctor")
@options.as_json
def command(*, as_json: bool) -> None:
    """Say what is here, what is missing or broken, and the exact line that mends it.

    Example: enginery doctor
    """
    from enginery import steps
    from enginery.cli.output import emit, working
    from enginery.reports.text import doctor_text

    with working() as progress:
        progress.plan((_STEP, _EXPECTED_S))
        with progress.step(_STEP):
            record = steps.doctor()
    emit(record, lambda style: doctor_text(record, style), as_json=as_json)
