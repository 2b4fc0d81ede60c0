"""A graph that TensorRT cannot run whole: its parts go to TensorRT, the rest to ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from enginery import backends
from enginery.backends.partitioned import Side, build_partitioned
from enginery.backends.tensorrt.building import build_graph
from enginery.backends.tensorrt.parsing import unsupported_operators
from enginery.backends.tensorrt.versions import Api, runs_type
from enginery.errors import BackendError
from enginery.graph.base import inner_nodes
from enginery.spec import BuildSpec, Option

if TYPE_CHECKING:
    import onnx_ir as ir

    from enginery.backends.base import Backend, Built

__all__ = ["REST", "build_shared", "owners", "takes"]

REST = "onnxruntime"
"""What runs what TensorRT does not."""


def build_shared(api: Api, backend: Backend, graph: ir.Model, spec: BuildSpec, folder: Path) -> Built:
    """Build a graph whole where TensorRT takes all of it, else in parts; see `enginery.backends.partitioned`.

    Args:
        api: the library.
        backend: whose `open` and `diagnose` the parts are handed to later.
        graph: what to build.
        spec: of the whole.
        folder: where to build, empty.

    Raises:
        BuildError: nothing is left for TensorRT, or a part cannot be built.
        GraphError: the graph cannot be cut where it would have to be.
    """
    only_build = SimpleNamespace(
        build=lambda graph, spec, folder: build_graph(api, graph, spec, folder), diagnose=backend.diagnose
    )
    refused = set(unsupported_operators(api, graph))
    rest = backends.get_available(REST)
    options, note = _rest_options(rest)
    built = build_partitioned(
        graph,
        spec,
        folder,
        main=Side(api.library.module, api.library.label, cast("Backend", only_build)),
        rest=Side(REST, "ONNX Runtime", rest, options),
        supported=lambda node: takes(api, node, refused),
    )
    return replace(built, notes=(*built.notes, note)) if note and built.parts else built


def owners(graph: ir.Model) -> Iterator[tuple[ir.Node, tuple[ir.Node, ...]]]:
    """Yield each node of the main graph with itself and all that are in its subgraphs or in a function it calls."""
    bodies = {(function.domain, function.name): tuple(function.all_nodes()) for function in graph.functions.values()}
    for node in graph.graph:
        own = (node, *inner_nodes(node))
        yield node, (*own, *(inner for one in own for inner in bodies.get((one.domain, one.op_type), ())))


def takes(api: Api, node: ir.Node, refused: set[str]) -> bool:
    """Say whether TensorRT may be able to run a node: its operator, those in its subgraphs, and all their types."""
    every = (node, *inner_nodes(node))
    if any((f"{one.domain}.{one.op_type}" if one.domain else one.op_type) in refused for one in every):
        return False
    values = (value for one in every for value in (*one.inputs, *one.outputs) if value is not None)
    return all(value.dtype is None or runs_type(api, value.dtype.name) for value in values)


def _rest_options(rest: Backend) -> tuple[dict[str, Option], str]:
    """Let the rest run on the GPU where this ONNX Runtime can; else say why it cannot, though it was made for it."""
    import onnx_ir as ir

    from enginery.backends.onnxruntime import has_provider

    if not has_provider("cuda"):
        return {}, ""
    options: dict[str, Option] = {"provider": "cuda"}
    tried = ir.from_onnx_text('<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] y) { y = Neg(x) }')
    try:
        with tempfile.TemporaryDirectory(prefix="enginery-") as folder:
            rest.build(tried, BuildSpec(options=options), Path(folder))
    except BackendError as error:
        return {}, f"ONNX Runtime runs its parts on the CPU: {error.message}"
    return options, ""
