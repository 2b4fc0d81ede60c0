"""How a trained model bears a narrower type, node by node: from a source to the record, with nothing built."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginery.errors import UnknownNameError
from enginery.preparation import make_cases, prepare, reference_of, reference_outputs
from enginery.progress import Progress
from enginery.records import SensitivityRecord
from enginery.sources import opened
from enginery.spec import Shape, SourceOptions, SourceSpec, VerifySpec, as_shapes

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from enginery.inputs.base import Range

__all__ = ["inspect_sensitivity"]

_STEP = "sensitivity"


def inspect_sensitivity(
    source: Any,
    precision: str = "fp16",
    *,
    example_inputs: Any = None,
    shapes: Mapping[str, Shape | str] | None = None,
    data: str | Path | None = None,
    ranges: Mapping[str, Range] | None = None,
    simplify: bool = True,
    measure: bool = True,
    progress: Progress | None = None,
    **said: Unpack[SourceOptions],
) -> SensitivityRecord:
    """Rank a model's nodes by what a narrower type would do to them, on data or on random inputs.

    Args:
        source: as for `enginery.steps.export`.
        precision: ``fp16`` or ``bf16``.
        example_inputs: as for `enginery.steps.export`.
        shapes: as for `enginery.steps.export`.
        data: recorded inputs; random ones tell little of ranges.
        ranges: of the random inputs, by name.
        simplify: whether to simplify the graph first, as a build does.
        measure: whether to let each part alone compute lower as well, and measure the error.
        progress: told what is going on.
        said: what else is known of the source: see `enginery.spec.SourceSpec`.

    Raises:
        UnknownNameError: nodes cannot be mixed in that precision.
        SourceError: the source cannot be taken.

    Example:
        >>> import onnx_ir as ir
        >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
        ... hot (float[4] x) => (float[4] y) <float[1] k = {7e4}> { [scale] a = Mul(x, k) [back] y = Div(a, k) }''')
        >>> inspect_sensitivity(model, "fp16").nodes[0].dangers[0].kind
        'overflow'
    """
    from enginery.inputs.base import Case, save_cases
    from enginery.tuning.refine import NARROW
    from enginery.tuning.sensitivity import sensitivity
    from enginery.tuning.simulation import Simulator

    if precision not in NARROW:
        raise UnknownNameError.from_choices("precision to mix node by node:", precision, NARROW)
    profile = as_shapes(shapes)
    progress = progress or Progress()
    progress.plan(("export", 5.0), *([("simplify", 5.0)] if simplify else []), ("reference", 5.0), (_STEP, 30.0))
    asked = SourceSpec.of(example_inputs, **said)
    with tempfile.TemporaryDirectory(prefix="enginery-") as name, opened(source, asked) as found:
        folder = Path(name)
        prepared = prepare(reference_of(found), folder, shapes=profile, simplify=simplify, progress=progress)
        cases = make_cases(prepared, data=data, ranges=ranges, say=progress.say)
        with progress.step("reference"):
            expected, reference = reference_outputs(prepared, cases.cases, folder)
        save_cases(cases.cases, folder / "cases")
        outputs = [Case(case.name, arrays) for case, arrays in zip(cases.cases, expected, strict=True)]
        save_cases(outputs, folder / "expected")
        with progress.step(_STEP), Simulator(
            prepared.path, cases=folder / "cases", expected=folder / "expected", folder=folder, spec=VerifySpec(),
            reference=reference, inputs=cases.described, on_wait=progress.changed,
        ) as simulator:  # fmt: skip
            return sensitivity(simulator, precision, measure=measure, progress=progress)
