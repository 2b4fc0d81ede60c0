"""What is ONNX Runtime's own: options, providers, read-back precision, warnings, diagnoses of real failures."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as onnxruntime_library
import pytest

from enginery.backends import engine, onnxruntime
from enginery.errors import BuildError, ProviderError, UnknownNameError
from enginery.graph.files import load
from enginery.machine import describe_machine
from enginery.records import GraphRecord
from enginery.spec import BuildSpec, Option

NEEDS_LAYOUT = pytest.mark.skipif(
    not hasattr(onnxruntime_library.GraphOptimizationLevel, "ORT_ENABLE_LAYOUT"),
    reason="this ONNX Runtime has no optimisation level 'layout'",
)
HEAD = '<ir_version: 8, opset_import: ["" : 17]>'


def build(text, folder, **options):
    """Build a model given as ONNX text."""
    model = ir.from_onnx_text(text if text.startswith("<") else f"{HEAD} {text}")
    return engine.build(model, BuildSpec(options=options), folder / "model.engine", backend="onnxruntime")


def refused(text, folder):
    """Return the mend of the error that building the model raises."""
    with pytest.raises(BuildError, match="onnxruntime cannot build this graph") as caught:
        build(text, folder)
    return caught.value.mend


@pytest.mark.parametrize(
    "options",
    [
        {"threads": 1},
        {"execution_mode": "parallel"},
        {"optimization": "none"},
        {"optimization": "basic"},
        {"optimization": "extended"},
        pytest.param({"optimization": "layout"}, marks=NEEDS_LAYOUT),
        {"spinning": False},
        {"provider": "cpu"},
    ],
)
def test_takes_its_options(small_model, tmp_path, options):
    """Every option builds, is kept, and leaves the answer as it is."""
    plain = engine.build(small_model, BuildSpec(), tmp_path / "plain.engine")
    built = engine.build(small_model, BuildSpec(options=options), tmp_path / "model.engine")
    x = np.ones((3, 4), np.float32)
    with plain.open() as first, built.open() as second:
        np.testing.assert_allclose(second.run({"x": x})["y"], first.run({"x": x})["y"], rtol=1e-6)
    kept = {**options, "provider": "CPUExecutionProvider"}
    assert kept.items() <= dict(built.manifest.options).items()


def test_options_reach_the_library(small_model, tmp_path):
    """The session has the options that were asked for, and says where it runs."""
    built = engine.build(small_model, BuildSpec(options={"threads": 2}), tmp_path / "model.engine")
    with built.open({"threads": 1}) as session:
        assert session.placement == "CPUExecutionProvider, 1 thread"
        assert session._runner._run.__self__.get_session_options().intra_op_num_threads == 1
    with built.open({"threads": 3, "execution_mode": "parallel", "spinning": False}) as session:
        asked = session._runner._run.__self__.get_session_options()
        assert session.placement == "CPUExecutionProvider, 3 threads, parallel"
    assert (asked.intra_op_num_threads, asked.inter_op_num_threads) == (3, 3)
    assert asked.execution_mode.name == "ORT_PARALLEL"
    assert asked.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_a_provider_that_is_not_here_is_an_error(small_model, tmp_path):
    """Asking for CUDA without it says what is there and how to get it; nothing falls back to the CPU."""
    with pytest.raises(ProviderError) as caught:
        engine.build(small_model, BuildSpec(options={"provider": "cuda"}), tmp_path / "model.engine")
    assert "provider CUDAExecutionProvider is not in the installed ONNX Runtime" in str(caught.value)
    assert "CPUExecutionProvider" in caught.value.message
    assert caught.value.mend == "run: pip uninstall onnxruntime; pip install onnxruntime-gpu"
    built = engine.build(small_model, BuildSpec(), tmp_path / "model.engine")
    with pytest.raises(ProviderError, match="CUDAExecutionProvider is not in"):
        built.open({"provider": "CUDAExecutionProvider"})


def test_a_silent_fallback_is_an_error(small_model, tmp_path, monkeypatch):
    """A session that comes up elsewhere than asked is refused, even if the library has the provider."""
    import onnxruntime as ort

    built = engine.build(small_model, BuildSpec(), tmp_path / "model.engine")
    monkeypatch.setattr(ort.InferenceSession, "get_providers", lambda _: ["XnnpackExecutionProvider"])
    with pytest.raises(ProviderError, match="CPUExecutionProvider was asked for, but the session came up on Xnnpack"):
        built.open()


def test_an_unknown_provider_gets_a_suggestion(small_model, tmp_path):
    """A misspelt provider is not taken for the CPU."""
    with pytest.raises(UnknownNameError, match="unknown provider 'CPUExecutionProvide'; did you mean 'CPUExecution"):
        engine.build(small_model, BuildSpec(options={"provider": "CPUExecutionProvide"}), tmp_path / "model.engine")


def test_reads_back_the_precision_of_the_optimised_graph(small_model, light_models, tmp_path):
    """Operators are counted after fusion, by the type that they compute in."""
    assert engine.build(small_model, BuildSpec(), tmp_path / "a.engine").manifest.precision_built == {"fp32": 3}
    resnet = load(light_models / "light_resnet50.onnx")
    counts = engine.build(resnet, BuildSpec(), tmp_path / "b.engine").manifest.precision_built
    assert set(counts) == {"fp32"}
    assert 50 < counts["fp32"] < len(resnet.graph)
    half = """half (float[n, 4] x) => (float[n, 4] y)
              { h = Cast <to = 10> (x)  e = Exp(h)  s = Sin(e)  f = Cast <to = 1> (s)  y = Abs(f) }"""
    # On the CPU it has no such kernels in half precision, and casts to fp32 around them without a word.
    assert build(half, tmp_path, optimization="none").manifest.precision_built == {"fp32": 3}


def test_keeps_warnings_and_shows_none(light_models, tmp_path, capfd):
    """What ONNX Runtime warns of is a note of the build, and not on the terminal."""
    graph = load(light_models / "light_resnet50.onnx")
    unused = ir.tensor(np.zeros(3, np.float32), name="unused")
    graph.graph.register_initializer(ir.Value(name="unused", const_value=unused))
    built = engine.build(graph, BuildSpec(), tmp_path / "model.engine")
    built.open().close()
    assert any("Removing initializer 'unused'" in note for note in built.manifest.build.notes)
    assert capfd.readouterr().err == ""


def test_knows_its_opset_ceiling():
    """The ceiling is the library's own word: a model above it is refused."""
    ceiling = onnxruntime.capabilities(describe_machine()).max_opset
    assert 21 <= ceiling < 100
    assert onnxruntime._opset_ceiling() == ceiling


def test_knows_its_other_ceilings():
    """The IR version and the operators of trees and scalers have ceilings of their own."""
    limits = onnxruntime.capabilities(describe_machine()).opsets
    assert 10 <= limits.max_ir_version < 100
    assert 5 <= limits.domains["ai.onnx.ml"] < 20
    assert limits.min_opset == 7


def test_refuses_an_opset_that_is_too_new(tmp_path):
    """The error names the version that is read and the one that was given, and the mend converts."""
    ceiling = onnxruntime._opset_ceiling()
    text = '<ir_version: 8, opset_import: ["" : 999]> m (float[n] x) => (float[n] y) { y = Abs(x) }'
    with pytest.raises(BuildError, match=f"it reads opset {ceiling} at most and the graph has 999") as caught:
        build(text, tmp_path)
    assert f"--opset {ceiling}" in caught.value.mend


def test_refuses_an_ir_version_that_is_too_new(tmp_path):
    """The error names both versions."""
    text = '<ir_version: 99, opset_import: ["" : 17]> m (float[n] x) => (float[n] y) { y = Abs(x) }'
    with pytest.raises(BuildError, match=r"it reads IR version \d+ at most and the graph has 99"):
        build(text, tmp_path)


def test_diagnoses_versions_that_are_too_new():
    """The meaning of ONNX Runtime's own words names both versions, where it is asked without Enginery's check."""
    said = onnxruntime.diagnose(RuntimeError("Opset 99 is under development and so on, is till opset 26."), None)
    assert "reads opset 26 at most and the graph has 99: export it with --opset 26" in said
    said = onnxruntime.diagnose(RuntimeError("Unsupported model IR version: 99, max supported IR version: 13"), None)
    assert "reads IR version 13 at most and the file has 99" in said


def test_diagnoses_a_missing_kernel(tmp_path):
    """The mend names the operator and the types it was given."""
    text = '<ir_version: 10, opset_import: ["" : 21]> m (int4[n] x) => (int4[n] y) { y = Identity(x) }'
    mend = refused(text, tmp_path)
    assert mend.startswith("this provider has no kernel for Identity (as of opset 21) on int4: cast around it")


def test_diagnoses_a_custom_operator(tmp_path):
    """The mend names operator and domain."""
    text = '<ir_version: 8, opset_import: ["" : 17, "my.ops" : 1]> m (float[n] x) => (float[n] y) { y = my.ops.Foo(x) }'
    assert refused(text, tmp_path).startswith("Foo is a custom operator of the domain 'my.ops'")


def test_diagnoses_an_unknown_operator(tmp_path):
    """The mend names the operator and the opset that lacks it."""
    assert refused("m (float[n] x) => (float[n] y) { y = Foo(x) }", tmp_path).startswith("opset 17 has no operator Foo")


def test_diagnoses_an_invalid_graph(tmp_path):
    """The mend says how to find the fault."""
    assert "check_model" in refused("m (float[n, 3] x, float[4, n] w) => (float[n] y) { y = MatMul(x, w) }", tmp_path)
    text = "m (bfloat16[1,3,8,8] x, bfloat16[1,3,1,1] w) => (bfloat16[1,1,8,8] y) { y = Conv(x, w) }"
    assert refused(text, tmp_path).startswith("ONNX does not allow tensor(bfloat16) for Conv at this opset")


def test_diagnoses_missing_weights(tmp_path):
    """A lost file of external data is told from a broken graph."""
    import onnxruntime as ort

    model = onnx.parser.parse_model(f"{HEAD} m (float[n, 2] x) => (float[n, 2] y) {{ y = MatMul(x, w) }}")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((2, 2), np.float32), "w"))
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="model.data", size_threshold=0)
    (tmp_path / "model.data").unlink()
    with pytest.raises(Exception, match="ONNXRuntimeError") as caught:
        ort.InferenceSession(path)
    assert "a file beside the graph that is missing" in onnxruntime.diagnose(caught.value, None)
    path.write_bytes(b"no model")
    with pytest.raises(Exception, match="ONNXRuntimeError") as caught:
        ort.InferenceSession(path)
    assert onnxruntime.diagnose(caught.value, None) == "the file is no ONNX model, or is cut short: export it again"
    assert onnxruntime.diagnose(RuntimeError("something else"), None) is None


def graph(flops=None, **operators: int) -> GraphRecord:
    """Return a summary with these operators."""
    return GraphRecord("g", (), (), 1, operators, 0, 0, flops, {}, 8, "", ())


def test_variants_follow_the_graph():
    """One thread always, no blocked layout for convolutions, branches side by side in big graphs that join them."""
    from dataclasses import replace

    machine = replace(describe_machine(), cores=2)
    plain: list[dict[str, Option]] = [{}, {"threads": 1}]
    assert list(onnxruntime.variants(graph(MatMul=3), machine)) == plain
    extended = {"optimization": "extended"}
    assert list(onnxruntime.variants(graph(Conv=3), machine)) == [*plain, extended]
    branches = graph(10**9, Conv=3, Concat=4)
    assert list(onnxruntime.variants(branches, machine)) == [*plain, extended, {"execution_mode": "parallel"}]
    assert list(onnxruntime.variants(graph(MatMul=3), replace(machine, cores=1))) == [{}]
    assert {"threads": 8} in onnxruntime.variants(graph(MatMul=3), replace(machine, cores=16))


def test_cuda_is_tried_where_there_is_a_gpu_and_the_package_for_it(monkeypatch):
    """The package alone does not do, nor does the GPU."""
    from dataclasses import replace

    machine = replace(describe_machine(), cores=1, gpus=("NVIDIA L4, 23034 MiB, compute capability 8.9",))
    cuda = {"provider": "cuda"}
    monkeypatch.setattr(onnxruntime.optional, "version", lambda _: None)
    assert cuda not in onnxruntime.variants(graph(MatMul=3), machine)
    monkeypatch.setattr(onnxruntime.optional, "version", {"onnxruntime-gpu": "1.31.1"}.get)
    assert cuda in onnxruntime.variants(graph(MatMul=3), machine)
    assert cuda not in onnxruntime.variants(graph(MatMul=3), replace(machine, gpus=()))


def test_probing_imports_nothing_heavy():
    """Asking whether a library is here does not load it."""
    code = (
        "import sys; from enginery import backends;"
        "found = [backends.get(name).probe() for name in backends.names()];"
        "assert all(item.reason == '' or item.mend for item in found);"
        "print(sorted({'onnxruntime', 'openvino', 'torch', 'onnx', 'onnx_ir'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_missing_library_says_how_to_get_it(monkeypatch, small_model, tmp_path):
    """Without ONNX Runtime, building says so with the pip line."""
    from enginery import optional
    from enginery.errors import BackendUnavailableError

    monkeypatch.setattr(optional, "version", lambda _: None)
    with pytest.raises(BackendUnavailableError, match="onnxruntime is not installed; run: pip install onnxruntime"):
        engine.build(small_model, BuildSpec(), tmp_path / "model.engine")
