"""New weights for an engine that was built to take them, without building it again.

Weights go by name: those of the graph's initializers, which TensorRT keeps. A weight that a pass or the builder has
folded into another has no name any more; then nothing is changed, and the error says which.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginery.backends.tensorrt.building import ARTEFACT
from enginery.backends.tensorrt.log import BuildLog
from enginery.backends.tensorrt.runtime import deserialize
from enginery.backends.tensorrt.versions import Api, make_weights, serialize_whole
from enginery.errors import BuildError, UsageError
from enginery.graph.base import apply_plan, make_plan
from enginery.records import ManifestRecord

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["refit_plan", "set_weights"]

_SHOWN = 5


def refit_plan(api: Api, folder: Path, manifest: ManifestRecord, graph: ir.Model, target: Path) -> None:
    """Write the plan of an engine folder anew, with the weights of another graph.

    Args:
        api: the library that built it.
        folder: the engine folder.
        manifest: its manifest.
        graph: the same graph with other weights; prepared as the engine's was, so that names and types agree.
        target: an empty folder, which takes the new plan.

    Raises:
        UsageError: the engine was not built to be refitted, or only with the weights that it was built from.
        BuildError: names, sizes or types of weights do not agree, or TensorRT refused them.
    """
    if manifest.options["refit"] == "no" and not manifest.options["strip_weights"]:
        raise UsageError(f"{folder} was not built to take other weights", mend="build it with --option refit=yes")
    typed = apply_plan(graph, make_plan(graph, manifest.precision)) if api.is_typed else graph
    log = BuildLog(api)
    engine = deserialize(api, folder / ARTEFACT, log, host_code=bool(manifest.options["version_compatible"]))
    refitter = api.module.Refitter(engine, log.logger)
    kept = set_weights(api, refitter, _weights_of(typed))
    if not refitter.refit_cuda_engine():
        said = "; ".join(log.errors()) or "it said nothing"
        raise BuildError(f"{api.library.label} {api.version} refused the new weights: {said}", mend="build it anew")
    del kept  # TensorRT reads them until here
    with (target / ARTEFACT).open("wb") as file:
        file.write(serialize_whole(api, engine))


def set_weights(api: Api, refitter: Any, given: Mapping[str, Any]) -> list[Any]:
    """Give a refitter every weight that its engine has, by name.

    Args:
        api: the library.
        refitter: TensorRT's, of the engine.
        given: tensors of the graph by name.

    Returns:
        The arrays, which must live until the engine is refitted.

    Raises:
        BuildError: the engine has weights that the graph has not, or one is refused, or is missing in the end.
    """
    names = list(refitter.get_all_weights())
    if not names:
        raise BuildError("the engine has no weights that can be changed", mend="build it with --option refit=yes")
    lost = [name for name in names if name not in given]
    if lost:
        raise BuildError(
            f"{len(lost)} of the engine's {len(names)} weights are not in the graph: {_shown(lost)}",
            mend="give the same model, prepared alike (the same shapes and --no-simplify or not), or build it anew",
        )
    kept = []
    for name in names:
        weights, array = make_weights(api, given[name].numpy(), given[name].dtype.name)
        kept.append(array)
        if not refitter.set_named_weights(name, weights):
            shape = "x".join(map(str, array.shape)) or "scalar"
            raise BuildError(
                f"the engine refuses the weight {name!r} ({given[name].dtype.name}, {shape}, "
                f"{math.prod(array.shape)} elements): its own has another size or type",
                mend="give the same model with other weights, or build it anew",
            )
    if missing := list(refitter.get_missing_weights()):
        raise BuildError(
            f"the engine still lacks {len(missing)} weights: {_shown(missing)}", mend="build it anew: they have no name"
        )
    return kept


def _weights_of(graph: ir.Model) -> dict[str, Any]:
    """Return the initializers, and the constants by the names of what they make."""
    values = graph.graph.initializers.items()
    found: dict[str, Any] = {name: value.const_value for name, value in values if value.const_value is not None}
    for node in graph.graph:
        constant = node.attributes.get("value") if node.op_type == "Constant" else None
        if constant is not None:
            found.setdefault(node.outputs[0].name or "", constant.as_tensor())
    return found


def _shown(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
