"""Sources that cannot be taken, on the command line: each has its own exit code, its words, and leaves no traces.

Every test runs the real program in a process of its own, in a folder whose every name, hidden ones too, is the same
before and after. A start of TensorFlow takes seconds, so it has few of them; the others are marked slow.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import LIMIT_S, enginery, mounted, names, refuse, wait_for_no_workers

DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "digits.onnx"
SAVED = Path(__file__).parents[1] / "sources" / "keras_models.py"
CONVERTS = "enginery.sources.tensorflow.jobs"
FACTORIES = """
import torch
def none(): return None
def several(): return [torch.nn.Linear(4, 2)]
def path(): return "model.onnx"
def linear(): return torch.nn.Linear(4, 2).eval()
"""
NETWORKS = """
import numpy as np
import openvino as ov
import enginery

@enginery.network(backend="openvino", weights={"w": np.eye(4, dtype=np.float32)})
def alone(opset, weights):
    x = opset.parameter([2, 4], np.float32, name="x")
    y = opset.relu(opset.matmul(x, opset.constant(weights["w"]), False, False))
    y.output(0).get_tensor().set_names({"y"})
    return ov.Model([opset.result(y.output(0))], [x], "alone")
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """Return a folder of Keras files and SavedModels."""
    for library in ("tensorflow", "keras", "tf2onnx"):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    folder = tmp_path_factory.mktemp("saved")
    subprocess.run([sys.executable, SAVED, folder], capture_output=True, check=True)
    return folder


@pytest.fixture
def here(tmp_path) -> Path:
    """Return a folder with a space and an umlaut in its name."""
    folder = tmp_path / "a földer"
    folder.mkdir()
    return folder


@pytest.fixture
def refused(here) -> Callable[..., str]:
    """Return a function that exports a source, and asserts how it is refused; no library talks on the terminal."""

    def run(code: int, source: object, *words: object, says: tuple[str, ...], output: str = "x.onnx") -> str:
        variables = {"PYTHONDONTWRITEBYTECODE": "1"}
        said = refuse(here, code, "export", source, "-o", output, *words, says=says, **variables)
        ours = ("error: ", "mend: ", "[", "  ")
        assert all(line.startswith(ours) for line in said.splitlines() if line), said
        return said

    return run


# SavedModels


def test_a_saved_model_without_signatures(refused, saved):
    """Nothing in it can be called."""
    refused(15, saved / "unsigned", says=("SavedModel unsigned has no signature that can be called", "save it again"))


def test_an_unknown_signature(refused, saved):
    """The nearest is suggested, and all are listed."""
    says = ("unknown signature 'narow'", "did you mean 'narrow'? (known: broad, narrow)")
    refused(3, saved / "two", "--signature", "narow", says=says)


def test_a_saved_model_that_is_cut_short(refused, saved, here):
    """The graph's file is named, without the library's own lines."""
    shutil.copytree(saved / "small", here / "cut")
    graph = here / "cut" / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])
    said = refused(12, "cut", says=("SavedModel cut is damaged or incomplete", "saved_model.pb", "copy it again"))
    assert "loader_impl.py" not in said


@pytest.mark.slow
def test_a_saved_model_without_variables(refused, saved, here):
    """What was looked for is named."""
    shutil.copytree(saved / "small", here / "bare", ignore=shutil.ignore_patterns("variables*"))
    refused(12, "bare", says=("SavedModel bare is damaged or incomplete", "variables", "copy it again"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--shapes", "imag=1..4x12x12x3"), 3, "did you mean 'image'?"),
        (("--shapes", "image=1..4x9x12x3"), 2, "input 'image', axis 1 is 12 in the model, 9 was asked for"),
        (("--example", "imag:float32[1,12,12,3]"), 3, "did you mean 'image'?"),
        (("--example", "image:float32[4]"), 2, "is float32[4], the model takes float32[?,12,12,3]"),
        (("--example", "image:int64[2,12,12,3]"), 2, "is int64[2,12,12,3], the model takes float32[?,12,12,3]"),
    ],
)
def test_words_that_do_not_fit_a_signature(words, code, said, refused, saved):
    """A slip in an input's name, and a size that the model has fixed, are told before anything is converted."""
    refused(code, saved / "small", *words, says=(said,))


# Keras files


def test_a_lambda_layer(refused, saved):
    """Its marshalled code is not run."""
    refused(
        14, saved / "lambda.keras", says=("holds a Lambda layer, whose Python code would be run", "file.py:factory")
    )


def test_a_class_that_is_not_here(refused, saved):
    """The class is named."""
    refused(10, saved / "custom.keras", says=("needs a class of its own that is not here", "'Doubled'", "SavedModel"))


def test_keras_files_that_are_damaged(refused, saved, here):
    """Cut short, of another kind, or changed inside: none is half-loaded."""
    whole = (saved / "plain.keras").read_bytes()
    (here / "cut.keras").write_bytes(whole[: len(whole) // 2])
    refused(12, "cut.keras", says=("cut.keras is damaged or cut short: it is no zip file", "copy it again"))
    (here / "page.h5").write_text("<html>please sign in</html>")
    refused(12, "page.h5", says=("page.h5 is damaged or cut short: it is no HDF5 file", "copy it again"))
    changed = bytearray(whole)
    middle = whole.index(b"model.weights.h5") + 2000
    changed[middle : middle + 100] = bytes(100 * [0xFF])
    (here / "changed.keras").write_bytes(changed)
    refused(12, "changed.keras", says=("changed.keras is damaged or cut short", "copy it again"))


# PyTorch's files


def save_torch(folder: Path) -> None:
    """Write files of PyTorch's, each wrong in its own way."""
    torch = pytest.importorskip("torch")

    class Runs:
        def __reduce__(self):
            return os.system, ("touch ran",)

    torch.save({"weight": torch.ones(2, 4), "runs": Runs()}, folder / "code.pt")
    torch.save(torch.nn.Linear(4, 2).state_dict(), folder / "state.pt")
    torch.save({"weight": torch.ones(2, 4), "wrong": torch.ones(2)}, folder / "wrong.pt")
    program = folder / "cut.pt2"
    torch.export.save(torch.export.export(torch.nn.Linear(4, 2).eval(), (torch.ones(2, 4),)), program)
    program.write_bytes(program.read_bytes()[: program.stat().st_size // 2])
    with zipfile.ZipFile(folder / "other.zip", "w") as archive:
        archive.writestr("other/config.json", "{}")
    (folder / "made.py").write_text(FACTORIES)


CUSTOM = """
import torch
library = torch.library.Library("planted", "DEF")
library.define("twice(Tensor x) -> Tensor")
library.impl("twice", lambda x: x * 2, "CPU")
class Twice(torch.nn.Module):
    def forward(self, x):
        return torch.ops.planted.twice(x)
torch.jit.script(Twice()).save("custom.pt")
"""


def test_files_of_pytorch_that_are_refused(refused, here):
    """Code in a pickle is not run; weights alone, and a file that is cut short, say what they are."""
    save_torch(here)
    refused(14, "code.pt", says=("code.pt is a pickle that imports posix.system", "state_dict()"))
    assert not (here / "ran").exists()
    refused(10, "state.pt", says=("2 tensors by name (a state dict)", "file.py:factory --weights state.pt"))
    refused(12, "cut.pt2", says=("cut.pt2 is cut short", "save it again"))


def test_a_script_that_needs_custom_operators(refused, here):
    """They are named."""
    pytest.importorskip("torch")
    (here / "script.py").write_text(CUSTOM)  # in a process of its own: here the operator is not known later
    subprocess.run([sys.executable, "-W", "ignore", "script.py"], cwd=here, check=True)
    refused(16, "custom.pt", says=("custom.pt needs custom operators that are not here: planted::twice", "registers"))


@pytest.mark.parametrize(
    ("weights", "code", "said"),
    [
        ("stat.pt", 11, "did you mean 'state.pt'"),
        ("wrong.pt", 10, "do not fit torch module Linear (made.py:linear): 1 missing (bias); 1 unexpected (wrong)"),
        ("code.pt", 14, "imports posix.system"),
        ("other.zip", 12, "other.zip is no file of PyTorch, or cut short"),
    ],
)
def test_weights_that_do_not_do(weights, code, said, refused, here):
    """A missing file, other names, code, and another library's archive."""
    save_torch(here)
    words = ("--weights", weights, "--example", "x:float32[1,4]")
    refused(code, "made.py:linear", *words, says=(said,))
    assert not (here / "ran").exists()


def test_a_factory_that_returns_no_model(refused, here):
    """What it returned is named; a path is no model."""
    save_torch(here)
    for name, kind in (("none", "NoneType"), ("several", "list"), ("path", "str")):
        says = (f"made.py:{name} returned a {kind}, which is no trained model", "let it return a model")
        refused(10, f"made.py:{name}", says=says)


# Options that mean nothing, or nothing possible


@pytest.mark.parametrize("option", ["signature", "weights"])
def test_options_of_other_sources(option, refused):
    """What an ONNX file has no use for is refused, with whom it is for."""
    refused(2, DIGITS, f"--{option}", "some", says=(f"{option} 'some' means nothing for", "leave it out: it is for"))


def test_make_dynamic_is_for_onnx_alone(refused, saved, here):
    """Torch and Keras take their dynamic axes from the shapes."""
    save_torch(here)
    for source in ("made.py:linear", saved / "plain.keras"):
        says = ("make-dynamic 'batch' means nothing for", "leave it out: it is for an ONNX file")
        refused(2, source, "--make-dynamic", "batch", says=says)


@pytest.mark.parametrize(
    ("asked", "code", "says"),
    [
        ("height=imag:2", 3, ("unknown input 'imag'", "did you mean 'image'?")),
        ("height=image:7", 2, ("there is no axis 7 of input 'image': its shape is [batch,1,8,8]", "0 to 3")),
        ("height=image:two", 2, ("'image:two' in 'height=image:two' is no axis", "NAME=INPUT:AXIS")),
        ("height=image:2", 20, ("this graph cannot have a dynamic 'height'", "Gemm 'node_linear'", "export the model")),
    ],
)
def test_axes_that_cannot_be_made_dynamic(asked, code, says, refused):
    """An unknown input, no such axis, and a graph that does not allow it, whose node is named."""
    refused(code, DIGITS, "--make-dynamic", asked, says=says)


def test_an_opset_that_nobody_has(refused, saved, here):
    """It is refused before a framework works for it."""
    save_torch(here)
    says = ("there is no opset 99 in the installed onnx", "at the most")
    for source, example in ((DIGITS, ()), ("made.py:linear", ("--example", "x:float32[1,4]"))):
        refused(13, source, *example, "--opset", 99, says=says)
    refused(13, saved / "plain.keras", "--opset", 99, says=says)


def test_an_opset_that_is_too_old(refused):
    """What cannot be brought to it is named."""
    refused(13, DIGITS, "--opset", 5, says=("from opset 20 to 5: Relu 'node_relu'", "export the model with opset 5"))


def test_a_keras_model_for_a_folder_that_takes_no_files(refused, saved, here):
    """It is refused before TensorFlow is started."""
    said = refused(
        60, saved / "plain.keras", output="/proc/x.onnx", says=("cannot write /proc/x.onnx", "name an output")
    )
    assert "] export" not in said
    with mounted(here / "disk", "-t", "tmpfs", "-o", "ro", "tmpfs"):
        refused(60, saved / "plain.keras", output="disk/x.onnx", says=("Read-only file system",))


def test_a_disk_that_fills_up(refused, saved, here):
    """It is told as that, and has all its space again."""
    with mounted(here / "disk", "-t", "tmpfs", "-o", "size=16k,nr_inodes=100", "tmpfs") as disk:
        (disk / "kept").write_bytes(bytes(4 * 4096))
        refused(62, saved / "small.keras", output="disk/x.onnx", says=("no space is left to write", "free some space"))
        assert [file.name for file in disk.iterdir()] == ["kept"]


# Processes that die


def children(parent: int) -> Iterator[int]:
    """Yield the processes of TensorFlow's that a process has started."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and CONVERTS.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                status = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(status[1]) == parent:
                    yield int(entry.name)


def conversions(scratch: Path) -> set[Path]:
    """Return the folders of the routes that have been begun."""
    others = ("worker", "cases", "outputs")
    return {path for path in scratch.glob("enginery-*/*-*") if path.name.partition("-")[2] not in others}


@contextlib.contextmanager
def exporting(here: Path, source: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Start an export to x.onnx; give its process, and the folder that its processes pass things in."""
    scratch = here.parent / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "enginery", "export", str(source), "-o", "x.onnx", "--json"]
    variables = {**os.environ, "TMPDIR": str(scratch)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=here, env=variables, **pipes) as process:
        yield process, scratch
    assert list(scratch.glob("enginery-*")) == []
    wait_for_no_workers(here)


def kill_conversions(process: subprocess.Popen[str], scratch: Path, *, at_most: int) -> int:
    """Kill the process of TensorFlow's each time it begins to convert; return how often."""
    seen: set[Path] = set()
    deadline = time.monotonic() + LIMIT_S
    while process.poll() is None and len(seen) < at_most and time.monotonic() < deadline:
        begun = conversions(scratch) - seen
        found = list(children(process.pid)) if begun else []
        if found:
            seen |= begun
            for pid in found:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
    return len(seen)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_every_exporter_dies(here, saved):
    """All are listed, with the signal, and nothing is written."""
    with exporting(here, saved / "plain.keras") as (process, scratch):
        killed = kill_conversions(process, scratch, at_most=99)
        out, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 17, said
    assert killed >= 2
    assert said.count("its process failed: worker 'tensorflow' died of SIGKILL") == killed
    assert "error: plain.keras cannot be exported to ONNX:" in said
    assert "mend: see whether memory ran out" in said
    assert "Traceback" not in said
    assert out == ""
    assert names(here) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_one_exporter_dies(here, saved):
    """The next gives the graph, and the record says why."""
    with exporting(here, saved / "plain.keras") as (process, scratch):
        assert kill_conversions(process, scratch, at_most=1) == 1
        out, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, said
    record = json.loads(out)
    (attempt,) = record["attempts"]
    assert attempt.endswith("its process failed: worker 'tensorflow' died of SIGKILL while it did 'convert'")
    assert not attempt.startswith(record["exporter"])
    assert set(names(here)) == {"x.onnx"}


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_while_tensorflow_converts(number, here, saved):
    """No process and no file is left."""
    with exporting(here, saved / "small.keras") as (process, scratch):
        while process.poll() is None and not conversions(scratch):
            time.sleep(0.002)
        process.send_signal(number)
        out, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 128 + number, said
    assert said.splitlines()[-1].endswith("; nothing was written")
    assert "Traceback" not in said
    assert out == ""
    assert names(here) == {}


@pytest.mark.slow
def test_two_exports_to_one_file_at_once(here, saved):
    """Both end well, and one file stands there whole."""
    command = [sys.executable, "-m", "enginery", "export", str(saved / "plain.keras"), "-o", "x.onnx"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, cwd=here, **pipes) for _ in range(2)]
    for process in both:
        said = process.communicate(timeout=LIMIT_S)[1]
        assert process.returncode == 0, said
    assert set(names(here)) == {"x.onnx"}
    assert enginery("inspect", "x.onnx", cwd=here).code == 0


# Networks built by hand


def test_a_network_has_no_graph(refused, here):
    """It is built with its own backend, and with no other; without a reference there is nothing to compare it with."""
    pytest.importorskip("openvino")
    (here / "net.py").write_text(NETWORKS)
    refused(13, "net.py:alone", says=("alone",))
    words = ("build", "net.py:alone", "-o", "x.engine", "--backend", "onnxruntime")
    says = ("the network alone is built by hand for openvino, so onnxruntime cannot build it", "leave the backend out")
    refuse(here, 2, *words, says=says, PYTHONDONTWRITEBYTECODE="1")
