"""Records written out by hand, for the tests of reports."""

from __future__ import annotations

from enginery.records import (
    BenchRecord,
    BuildRecord,
    CandidateRecord,
    CheckRecord,
    ExportRecord,
    FileRecord,
    GraphRecord,
    LoadRecord,
    MachineRecord,
    ManifestRecord,
    OptimizeRecord,
    OutputRecord,
    SimplifyRecord,
    TensorInfo,
    VerifyRecord,
)
from enginery.spec import Shape

MACHINE = MachineRecord(
    "Linux 6.1 x86_64", "A Processor", 2, 8 * 2**30, ("avx2",), (), None, None, "3.11.7", "0.1.0", {"numpy": "2.0"}
)
IMAGE = TensorInfo("image", "float32", ("batch", 3, 224, 224), Shape.parse("batch:1..8..32x3x224x224"))
SCORES = TensorInfo("scores", "float32", ("batch", 1000))
GRAPH = GraphRecord(
    name="resnet50", inputs=(IMAGE,), outputs=(SCORES,), nodes=124, operators={"Conv": 53, "Relu": 49, "Add": 16},
    parameters=25_530_472, parameter_bytes=102_121_888, flops=8_200_000_000, opsets={"": 20}, ir_version=10,
    producer="pytorch 2.13", dynamic_dims=("batch",), sha256="ab" * 32,
)  # fmt: skip
EXPORT = ExportRecord(
    source="torch module ResNet", kind="torch_module", exporter="torch.onnx.export (dynamo)",
    versions={"torch": "2.13.0"}, opset=20, dynamic_axes={"image": ("batch",)}, seconds=4.2, nodes=176,
    attempts=("torch.onnx.export (trace): outputs were off by 3.1",), notes=("one buffer was left out",),
)  # fmt: skip


def bench(p50_ms: float, *, half_ms: float = 0.01, stable: bool = True, notes: tuple[str, ...] = ()) -> BenchRecord:
    """Return a benchmark of eight pictures a call."""
    return BenchRecord(
        shapes={"image": (8, 3, 224, 224)}, batch=8, samples=120, min_ms=p50_ms * 0.97, p50_ms=p50_ms,
        p90_ms=p50_ms * 1.1, p95_ms=p50_ms * 1.2, p99_ms=p50_ms * 1.5, mean_ms=p50_ms * 1.02,
        ci_low_ms=p50_ms - half_ms, ci_high_ms=p50_ms + half_ms, throughput=8000 / p50_ms, stable=stable,
        rule="the interval is within 1 % or 10 s have passed", turns_ms=(p50_ms,) * 3, first_call_ms=p50_ms * 3,
        load_ms=210.0, placement="CPU, 2 threads", load=LoadRecord(2, 0.03, 0.4, 0.0, notes),
    )  # fmt: skip


def verify(error: float, max_error: float = 1e-3, accuracy: float | None = None) -> VerifyRecord:
    """Return a comparison of one output at two shapes."""
    outputs = tuple(
        OutputRecord("scores", case, "float32", (rows, 1000), 2 * error, error, error, 0.9999999, 120.5, 1.0)
        for case, rows in (("min", 1), ("opt", 8))
    )
    checks = (
        CheckRecord("repeat", True, "3 runs agree"),  # noqa: FBT003 - the record's own order
        CheckRecord("rows", None, "the batch is one row"),
    )
    return VerifyRecord(
        "torch module ResNet", "random (normal, seed 0) at min, opt, max", outputs, checks, error, max_error,
        error <= max_error, accuracy, None if accuracy is None else 0.97, 3.5,
    )  # fmt: skip


def build(backend: str = "openvino", precision: str = "fp32", size_bytes: int = 102_000_000) -> BuildRecord:
    """Return how an engine was built."""
    return BuildRecord(backend, "1.2", precision, {precision: 124}, {"threads": 2}, 2.5, size_bytes, 300_000_000)


LONG_REASON = (
    "BuildError: the library refused the graph: Input /backbone/stage4/unit2/conv3/Conv_output_0 of type "
    "tensor(float8e4m3fn) is not supported by operator Resize(13) in mode cubic; its log ends with: "
    "no kernel was found for the node and none could be generated; drop the operator or keep it in float32"
)


def row(label: str, status: str, reason: str = "", **changes: object) -> CandidateRecord:
    """Return one candidate; `changes` replace its fields."""
    fields: dict[str, object] = {
        "label": label, "role": "candidate", "backend": label.split(maxsplit=1)[0], "environment": "here",
        "precision": "fp32",
        "options": {}, "status": status, "reason": reason, "build": build(), "verify": verify(2.1e-7),
        "bench": bench(20.0),
    }  # fmt: skip
    return CandidateRecord(**{**fields, **changes})


CANDIDATES = (
    row("PyTorch 2.13.0 eager", "timed", role="baseline", backend="", build=None, verify=None, bench=bench(60.0)),
    row("onnxruntime, plain", "timed", role="baseline", backend="onnxruntime", bench=bench(40.0, half_ms=0.2)),
    row("openvino", "chosen", "lowest p50 of 2 acceptable candidates", bench=bench(20.0)),
    row("onnxruntime threads=1", "accepted", "2.50x slower than openvino", bench=bench(50.0, stable=False)),
    row("openvino bf16", "rejected", "error 2.0e-02 is above 1.0e-03", precision="bf16", verify=verify(2e-2)),
    row("onnxruntime fp8", "failed", LONG_REASON, precision="fp8", build=None, verify=None, bench=None),
)


def optimized(candidates: tuple[CandidateRecord, ...] = CANDIDATES) -> OptimizeRecord:
    """Return what `optimize` found."""
    return OptimizeRecord(
        source="torch module ResNet", export=EXPORT, graph=GRAPH,
        simplify=SimplifyRecord(176, 124, (), "onnxruntime", 1.5), candidates=candidates, chosen="openvino",
        engine="resnet50.engine", machine=MACHINE, spec={}, seconds=83.0, notes=("timed beside other work",),
    )  # fmt: skip


def manifest() -> ManifestRecord:
    """Return the manifest of an engine."""
    return ManifestRecord(
        backend="openvino", backend_version="1.2", enginery="0.1.0", name="resnet50", inputs=(IMAGE,),
        outputs=(SCORES,), precision="fp32", precision_built={"fp32": 124}, options={"threads": 2},
        source="resnet50.onnx", source_sha256="cd" * 32, graph_sha256="ef" * 32, machine=MACHINE,
        files={"model.xml": FileRecord("12" * 32, 4096), "model.bin": FileRecord("34" * 32, 102_121_888)},
        created="2026-01-01T00:00:00+00:00", build=build(), verify=verify(2.1e-7), bench=bench(20.0),
    )  # fmt: skip
