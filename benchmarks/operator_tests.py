"""ONNX's own single-operator tests, on a backend's library called directly and through Enginery.

    python benchmarks/operator_tests.py --backend onnxruntime --backend openvino --output results.json

Each case is a model of one operator with inputs and expected outputs. It runs twice: on the library alone, which reads
the file as it is, and through Enginery, which brings the graph to the opset and IR version that the backend reads, and
then through `build`, `load`, `open` and `run`. One that passes alone and not through Enginery is *lost*, a defect of
Enginery. One that only the library takes, because its opset is above what the library is known to read and nothing
older says the same, is *refused*: that the library guesses right proves nothing. One that passes only through Enginery
is *gained*. Every other failure is the library's, and is listed by its cause.

Cases run in chunks, each in a process of its own, so a library that crashes takes one case with it: the chunk goes on
behind the case that was running. Comparison is as in ONNX's backend test runner, with each case's own tolerances.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.runner import Runner
from onnx.reference import ReferenceEvaluator

from enginery import backends, optional
from enginery.backends import engine
from enginery.backends.elements import from_bytes, is_extended, nbytes, to_bytes
from enginery.graph.base import type_name
from enginery.graph.files import load
from enginery.graph.opset.convert import fit_opset
from enginery.machine import describe_machine
from enginery.spec import BuildSpec

if TYPE_CHECKING:
    from onnx.backend.test.case.test_case import TestCase

Outputs = list[Any]
CRASHED = "the process died"
REFUSED = "opset newer than the library, and not convertible"
CHUNK = 300
CASE_LIMIT_S = 120


def collect() -> dict[str, TestCase]:
    """Return all single-operator cases by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the generators overflow and divide by zero on purpose
        return {case.name: case for case in collect_testcases(None)}


def check(expected: Outputs, found: Outputs, case: TestCase) -> None:
    """Compare outputs as ONNX's runner does, which needs its own class for it.

    Raises:
        AssertionError: they differ in number, shape, dtype or value.
    """
    if len(expected) != len(found):
        raise AssertionError(f"incorrect shape: {len(found)} outputs, {len(expected)} expected")
    for wanted, given in zip(expected, found, strict=True):
        if _is_extended_array(wanted) and wanted.dtype.name != "bfloat16":
            # numpy's comparison takes none of these types; float32 holds each of their values.
            np.testing.assert_equal(given.dtype, wanted.dtype)
            np.testing.assert_array_equal(given.astype(np.float32), wanted.astype(np.float32))
        else:
            Runner.assert_similar_outputs([wanted], [given], case.rtol, case.atol)


def as_arrays(values: Iterable[Any]) -> list[Any]:
    """Return tensors and scalars of a case as arrays; lists (sequences) and None (absent optionals) stay."""
    return [
        onnx.numpy_helper.to_array(value)
        if isinstance(value, onnx.TensorProto)
        else np.asarray(value)
        if isinstance(value, np.generic)
        else value
        for value in values
    ]


def _is_extended_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.isbuiltin == 2


def dtypes(values: Iterable[onnx.ValueInfoProto]) -> dict[str, str]:
    """Return the element type of each tensor by name, as Enginery names it."""
    return {value.name: type_name(ir.serde.deserialize_type_proto_for_type(value.type)) for value in values}


def prepare_onnxruntime(case: TestCase, folder: Path) -> Callable[[dict[str, Any]], Outputs]:
    """Open a case on ONNX Runtime alone."""
    import onnxruntime as ort  # noqa: PLC0415 - a worker loads one library

    del folder
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(case.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = dtypes([*case.model.graph.input, *case.model.graph.output])
    names = [item.name for item in session.get_outputs()]

    def give(name: str, value: Any) -> Any:
        if not is_extended(kinds[name]):
            return value
        made = ort.OrtValue.ortvalue_from_shape_and_type(
            list(value.shape), onnx.TensorProto.DataType.Value(kinds[name].upper())
        )
        raw = to_bytes(np.ascontiguousarray(value).reshape(value.shape), kinds[name])
        ctypes.memmove(made.data_ptr(), raw.ctypes.data, raw.nbytes)
        return made

    def take(name: str, value: Any) -> Any:
        if not is_extended(kinds[name]):
            return value.numpy()
        shape = tuple(value.shape())
        raw = bytearray(ctypes.string_at(value.data_ptr(), nbytes(shape, kinds[name])))
        return from_bytes(np.frombuffer(raw, np.uint8), shape, kinds[name])

    def run(feeds: dict[str, Any]) -> Outputs:
        given = {name: give(name, value) for name, value in feeds.items()}
        if not any(is_extended(kinds[name]) for name in names):
            return session.run(names, given)
        binding = session.io_binding()
        for name, value in given.items():
            bind = binding.bind_ortvalue_input if is_extended(kinds[name]) else binding.bind_cpu_input
            bind(name, value)
        for name in names:
            binding.bind_output(name)
        session.run_with_iobinding(binding)
        return [take(name, value) for name, value in zip(names, binding.get_outputs(), strict=True)]

    return run


def prepare_reference(case: TestCase, folder: Path) -> Callable[[dict[str, Any]], Outputs]:
    """Open a case on ONNX's reference evaluator alone."""
    del folder
    evaluator = ReferenceEvaluator(case.model)
    return lambda feeds: evaluator.run(None, feeds)


def prepare_openvino(case: TestCase, folder: Path) -> Callable[[dict[str, Any]], Outputs]:
    """Open a case on OpenVINO alone, in f32, as Enginery does."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # it would report the import
    import openvino as ov  # noqa: PLC0415 - a worker loads one library

    path = folder / "direct.onnx"
    onnx.save(case.model, path)
    core = ov.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    kinds = dtypes([*case.model.graph.input, *case.model.graph.output])
    ports = {name: port for port in compiled.inputs for name in port.get_names()}  # it drops inputs that it ignores
    outputs = [item.name for item in case.model.graph.output]

    def give(name: str, port: Any, value: Any) -> Any:
        if kinds[name] == "string":
            return ov.Tensor(value.astype(str))
        if is_extended(kinds[name]):
            return ov.Tensor(to_bytes(value, kinds[name]), ov.Shape(value.shape), port.get_element_type())
        return value

    def take(name: str, tensor: Any) -> Any:
        if kinds[name] == "string":
            return tensor.str_data.astype(object)
        if is_extended(kinds[name]):
            return from_bytes(np.array(tensor.data).reshape(-1).view(np.uint8), tuple(tensor.shape), kinds[name])
        return np.array(tensor.data)

    def run(feeds: dict[str, Any]) -> Outputs:
        named = all(port.get_names() & feeds.keys() for port in compiled.inputs)
        given = ports if named else dict(zip(feeds, compiled.inputs, strict=True))
        request.infer({port: give(name, port, feeds[name]) for name, port in given.items() if name in feeds})
        return [take(name, request.get_output_tensor(at)) for at, name in enumerate(outputs)]

    return run


DIRECT = {"onnxruntime": prepare_onnxruntime, "reference": prepare_reference, "openvino": prepare_openvino}


def prepare_enginery(backend: str) -> Callable[[TestCase, Path], Callable[[dict[str, Any]], Outputs]]:
    """Return what opens a case through Enginery: save, load the graph, fit its opset, build, load the engine, open."""

    def prepare(case: TestCase, folder: Path) -> Callable[[dict[str, Any]], Outputs]:
        path = folder / "case.onnx"
        onnx.save(case.model, path)
        graph, _ = fit_opset(load(path), backends.get(backend).capabilities(describe_machine()).opsets)
        engine.build(graph, BuildSpec(), folder / "case.engine", backend=backend)
        session = engine.load(folder / "case.engine").open()
        known = {info.name for info in session.inputs}

        def run(feeds: dict[str, Any]) -> Outputs:
            outputs = session.run({name: value for name, value in feeds.items() if name in known})
            return list(outputs.values())

        return run

    return prepare


def attempt(prepare: Callable[[TestCase, Path], Callable[[dict[str, Any]], Outputs]], case: TestCase) -> str:
    """Run one case; return its cause of failure, or an empty string."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            run = prepare(case, Path(folder))
            for inputs, expected in case.data_sets:
                feeds = dict(zip([item.name for item in case.model.graph.input], as_arrays(inputs), strict=False))
                check(as_arrays(expected), as_arrays(run(feeds)), case)
        except Exception as error:  # noqa: BLE001 - whatever a library raises is its cause of failure
            return cause(error)
    return ""


def cause(error: Exception) -> str:
    """Name the cause of a failure, the same for all cases that fail alike."""
    text = " ".join(str(error).split())
    if isinstance(error, AssertionError):
        for part, name in (("incorrect shape", "wrong shape"), ("Items are not equal", "wrong dtype or number")):
            if part in text:
                return name
        return "wrong values"
    for pattern, name in CAUSES:
        if re.search(pattern, text, re.IGNORECASE):
            return name
    general = re.sub(r"\b[0-9]+\b", "N", text)[:90]
    return f"{type(error).__name__}: {general}"


CAUSES = (
    (r"cannot be brought from opset", REFUSED),
    (r"is under development and support for this is limited", "opset newer than the library"),
    (r"Unsupported model IR version", "IR version newer than the library"),
    (r"Could not find an implementation|NOT_IMPLEMENTED", "no kernel for the operator in this type"),
    (r"is not a registered function/op|No Op registered", "unknown operator"),
    (r"No conversion rule found", "unknown operator"),
    (r"not currently registered or supported|Unsupported data type|unsupported element type|f8e\w+|complex\d+",
     "element type not supported"),
    (r"sequence|optional", "sequences and optionals not supported"),
    (r"INVALID_GRAPH|Type Error|type inference|ShapeInferenceError", "model refused as invalid"),
    (r"Conversion failed|While validating ONNX node|FrontEnd API failed|frontends/",
     "form of the operator not converted"),
    (r"core/src|plugins/intel_cpu|src/inference", "refused when compiled or run"),
    (r"No reference implementation|not implemented|NotImplemented", "no reference implementation"),
    (r"Exception during initialization|Non-zero status code", "form of the operator not supported by the kernel"),
    (r"Unable to compare expected type|'NoneType'", "optionals without a value not supported"),
)  # fmt: skip


def work(backend: str, names: Sequence[str], results: Path) -> None:
    """Run cases in this process, and write a line before and after each, for the parent to go on behind a crash."""
    cases = collect()
    ways = {"direct": DIRECT[backend], "enginery": prepare_enginery(backend)}
    with results.open("a", encoding="utf-8") as file:
        for name in names:
            for way, prepare in ways.items():
                print(json.dumps([name, way, None]), file=file, flush=True)
                print(json.dumps([name, way, attempt(prepare, cases[name])]), file=file, flush=True)


def read(results: Path) -> dict[tuple[str, str], str | None]:
    """Read the lines of `work`: the cause of failure by case and way; None for the one that was running."""
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    return {(name, way): found for name, way, found in map(json.loads, lines)}


def run_backend(backend: str, names: Sequence[str], say: Callable[[str], None] = print) -> dict[str, Any]:
    """Run cases on one backend, each chunk in a process; return counts and causes."""
    begin = time.monotonic()
    found: dict[tuple[str, str], str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for at in range(0, len(names), CHUNK):
            left = list(names[at : at + CHUNK])
            while left:
                left = _run_chunk(backend, left, Path(folder) / "results.jsonl", found)
            say(f"  {backend}: {min(at + CHUNK, len(names))} of {len(names)}, {time.monotonic() - begin:.0f} s")
    return summarise(backend, names, found, time.monotonic() - begin)


def _run_chunk(backend: str, names: list[str], results: Path, found: dict[tuple[str, str], str]) -> list[str]:
    """Run cases in one process, add what it found, and return those that it did not come to."""
    results.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--work", backend, str(results)]
    limit_s = CASE_LIMIT_S + 2 * len(names)
    with contextlib.suppress(subprocess.TimeoutExpired):  # the case that was running then counts as a crash
        subprocess.run(
            command, input=json.dumps(names), text=True, timeout=limit_s, check=False, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
    lines = read(results)
    if not lines:
        raise RuntimeError(f"the process for {backend} wrote nothing; run it by hand: {' '.join(command)}")
    found.update({key: CRASHED if value is None else value for key, value in lines.items()})
    done = {name for name, _ in lines}
    for name in done:
        found.setdefault((name, "enginery"), CRASHED if found[name, "direct"] == CRASHED else "not run")
    return [name for name in names if name not in done]


def summarise(backend: str, names: Sequence[str], found: dict[tuple[str, str], str], seconds: float) -> dict[str, Any]:
    """Return counts, what was lost and gained, and the failing cases by cause."""
    causes: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if found[name, "direct"]:
            causes[found[name, "direct"]].append(name)
    refused = [name for name in names if not found[name, "direct"] and found[name, "enginery"] == REFUSED]
    lost = [name for name in names if not found[name, "direct"] and found[name, "enginery"] not in ("", REFUSED)]
    gained = [name for name in names if found[name, "direct"] and not found[name, "enginery"]]
    return {
        "version": optional.version("onnx" if backend == "reference" else backend),
        "cases": len(names),
        "direct": sum(not found[name, "direct"] for name in names),
        "enginery": sum(not found[name, "enginery"] for name in names),
        "lost": {name: found[name, "enginery"] for name in lost},
        "refused": refused,
        "gained": gained,
        "seconds": round(seconds),
        "causes": {cause: sorted(causes[cause]) for cause in sorted(causes, key=lambda cause: -len(causes[cause]))},
    }


def show(backend: str, result: dict[str, Any]) -> None:
    """Print one backend's result."""
    print(f"{backend} {result['version']}: {result['cases']} cases, {result['direct']} pass directly, "
          f"{result['enginery']} through Enginery, {len(result['lost'])} lost, {len(result['refused'])} refused, "
          f"{len(result['gained'])} gained, "
          f"{result['seconds']} s")  # fmt: skip
    for reason, count in Counter({reason: len(names) for reason, names in result["causes"].items()}).most_common():
        print(f"  {count:5d}  {reason}")
    for name, reason in result["lost"].items():
        print(f"  LOST   {name}: {reason}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; leaves with 1 where a case was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", action="append", choices=sorted(DIRECT), help="may be repeated; default: all")
    parser.add_argument("--every", type=int, default=1, help="run every Nth case only")
    parser.add_argument("--match", default="", help="run the cases whose name holds this text")
    parser.add_argument("--output", type=Path, help="write the result as JSON")
    parser.add_argument("--work", nargs=2, metavar=("BACKEND", "FILE"), help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.work:
        work(asked.work[0], json.load(sys.stdin), Path(asked.work[1]))
        return 0
    names = [name for name in sorted(collect()) if asked.match in name][:: asked.every]
    results: dict[str, Any] = {"onnx": onnx.__version__, "backends": {}}
    for backend in asked.backend or sorted(DIRECT):
        results["backends"][backend] = run_backend(backend, names)
        show(backend, results["backends"][backend])
        if asked.output:
            asked.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return int(any(result["lost"] for result in results["backends"].values()))


if __name__ == "__main__":
    sys.exit(main())
