"""The command line given what it should not be given: each mistake has its own exit code, its words, and no traces.

Every test runs the real program in a process of its own, in a folder whose every name, hidden ones too, is the same
before and after.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import LIMIT_S, enginery, mounted, names, refuse, wait_for_no_workers

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
DIGITS = EXAMPLE / "digits.onnx"
SEVEN = EXAMPLE / "seven.npy"
SHAPES = ("--shapes", "image=1..4..8x1x8x8")
NULL = ("--backend", "null")
ROWS = np.random.default_rng(0).random((4, 1, 8, 8), np.float32)


@pytest.fixture(scope="module")
def engines(tmp_path_factory) -> Path:
    """Return a folder with an engine of ONNX Runtime, ``ort.engine``, and one of zeros, ``null.engine``."""
    folder = tmp_path_factory.mktemp("engines")
    for name, backend in (("ort", "onnxruntime"), ("null", "null")):
        told = enginery("build", DIGITS, "-o", f"{name}.engine", "--backend", backend, *SHAPES, cwd=folder)
        assert told.code == 0, told.said
    return folder


@pytest.fixture
def here(tmp_path, engines) -> Path:
    """Return a folder with a space and an umlaut in its name, and copies of both engines."""
    folder = tmp_path / "a földer"
    shutil.copytree(engines, folder)
    return folder


@pytest.fixture
def refused(here) -> Callable[..., str]:
    """Return a function that runs the program, and asserts its code, its words, a mend, and that nothing changed."""

    def run(code: int, *words: object, says: tuple[str, ...], **variables: str) -> str:
        return refuse(here, code, *words, says=says, **variables)

    return run


def model(text: str, path: Path) -> Path:
    """Write a model given as ONNX's own text."""
    import onnx_ir as ir

    ir.save(ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": 17]> {text}'), path)
    return path


# The source


@pytest.mark.parametrize(
    "words",
    [
        ("build", "missing.onnx", "-o", "new/deep/x.engine"),
        ("optimize", "missing.onnx"),
        ("export", "missing.onnx", "-o", "x.onnx"),
        ("inspect", "missing.onnx"),
        ("view", "missing.onnx", "--no-open"),
        ("verify", "ort.engine", "missing.onnx"),
    ],
)
def test_a_missing_file(words, refused):
    """It is named, by every command that reads it; folders made for the output go again."""
    refused(11, *words, says=("there is no", "missing.onnx", "check the path"))


def test_the_nearest_file_is_suggested(refused, here):
    """A slip in a name is mended by the names that are there."""
    shutil.copy(DIGITS, here / "digits.onnx")
    refused(
        11, "build", "digit.onnx", "-o", "x.engine", says=("there is no file digit.onnx", "did you mean 'digits.onnx'?")
    )


@pytest.mark.parametrize("command", ["build", "inspect", "view"])
def test_a_truncated_model(command, refused, here):
    """A download that was cut short is told from a wrong model."""
    (here / "cut.onnx").write_bytes(DIGITS.read_bytes()[:5000])
    words = {"build": ("-o", "x.engine"), "inspect": (), "view": ("--no-open",)}[command]
    refused(12, command, "cut.onnx", *words, says=("cut.onnx (5000 bytes)", "is cut short", "download the file again"))


def test_a_text_called_onnx(refused, here):
    """The beginning of the text shows what it is, such as the page of a login."""
    (here / "notes.onnx").write_text("please sign in")
    refused(12, "build", "notes.onnx", "-o", "x.engine", says=("notes.onnx is text", "please sign in"))
    (here / "page.onnx").write_text("<html>please sign in</html>")
    refused(12, "inspect", "page.onnx", says=("page.onnx is an HTML page", "fetch the file itself"))


def test_an_empty_model(refused, here):
    """A file of no bytes is told in one word."""
    (here / "empty.onnx").touch()
    refused(12, "build", "empty.onnx", "-o", "x.engine", says=("empty.onnx is empty (0 bytes)",))


def test_an_engine_is_no_source_and_a_source_no_engine(refused):
    """Each given for the other is told so."""
    refused(10, "build", "ort.engine", "-o", "x.engine", says=("ort.engine is an engine, not a trained model",))
    refused(50, "verify", DIGITS, DIGITS, says=("digits.onnx is a file, no engine folder", "enginery build"))


FACTORIES = """
import os, sys
def raises(): raise RuntimeError("no weights")
def leaves(): sys.exit("bye")
def gives(): return 5
def needs(size): return size
"""


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("raises", 10, "calling made.py:raises() raised RuntimeError: no weights at made.py:3"),
        ("leaves", 10, "calling made.py:leaves() raised SystemExit: bye at made.py:4"),
        ("needs", 10, "missing 1 required positional argument: 'size'"),
        ("rises", 11, "did you mean 'made.py:raises'?"),
    ],
)
def test_a_factory_that_fails(name, code, said, refused, here):
    """What a user's own code raises, sys.exit too, is told with its line."""
    pytest.importorskip("torch")
    (here / "made.py").write_text(FACTORIES)
    refused(code, "export", f"made.py:{name}", "-o", "x.onnx", says=(said,), PYTHONDONTWRITEBYTECODE="1")


def test_a_factory_that_is_no_model(refused, here):
    """What it returned is named."""
    pytest.importorskip("torch")
    (here / "made.py").write_text(FACTORIES)
    says = ("made.py:gives returned", "returned a int, which is no trained model")
    refused(10, "export", "made.py:gives", "-o", "x.onnx", says=says, PYTHONDONTWRITEBYTECODE="1")


def test_a_factory_that_prints_keeps_stdout_for_the_result(here):
    """With --json stdout is JSON, whatever the factory prints."""
    pytest.importorskip("torch")
    (here / "made.py").write_text(
        "import os, torch\nos.system('echo from the shell')\n"
        "def make():\n    print('loading')\n    return torch.nn.Linear(4, 2).eval()\n"
    )
    words = ("export", "made.py:make", "-o", "x.onnx", "--example", "input:float32[1,4]", "--json")
    told = enginery(*words, cwd=here)
    assert told.code == 0, told.said
    assert json.loads(told.out)["kind"] == "torch"
    assert "loading" in told.said
    assert "from the shell" in told.said


def test_models_without_inputs_and_of_no_size_are_built(here):
    """A constant, and a tensor without elements, are models like any other."""
    model("none () => (float[2] y) { y = Constant<value_floats=[1.0, 2.0]>() }", here / "none.onnx")
    model("zero (float[0, 4] x) => (float[0, 4] y) { y = Relu(x) }", here / "zero.onnx")
    np.save(here / "x.npy", np.zeros((0, 4), np.float32))
    for name, given, shape in (("none", (), [2]), ("zero", ("x.npy",), [0, 4])):
        assert enginery("build", f"{name}.onnx", "-o", f"{name}.engine", cwd=here).code == 0
        told = enginery("run", f"{name}.engine", *given, "-o", f"{name}.npy", cwd=here)
        assert told.code == 0, told.said
        assert list(np.load(here / f"{name}.npy").shape) == shape


# Names, types and shapes


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (3, ("build", DIGITS, "-o", "x.engine", "--shapes", "imag=1..4x1x8x8")),
        (31, ("run", "ort.engine", f"imag={SEVEN}")),
        (3, ("verify", "ort.engine", DIGITS, "--range", "imag=0..1")),
    ],
)
def test_a_wrong_input_name(code, words, refused):
    """The name given and the names there are stand in the message."""
    refused(code, *words, says=("'imag'", "'image'"))


@pytest.mark.parametrize("command", ["run", "verify"])
def test_a_wrong_name_in_the_data(command, refused, here):
    """Data of two arrays, none of them the input's, is refused with both names; one array alone can only be meant."""
    np.savez(here / "two.npz", one=ROWS, two=ROWS)
    words = (
        ("run", "ort.engine", "two.npz") if command == "run" else ("verify", "ort.engine", DIGITS, "--data", "two.npz")
    )
    refused({"run": 31, "verify": 35}[command], *words, says=("two.npz lacks input 'image'", "'one'", "'two'"))


WRONG_ARRAYS = {
    "dtype": (ROWS.astype(np.int64), 32, ("int64", "takes float32", "astype('float32')")),
    "rank": (ROWS[:, 0, 0], 33, ("'image' has 2 dimensions (4, 8), the engine takes 4", "add or drop an axis")),
    "range": (ROWS.repeat(5, axis=0), 34, ("'image', axis 0 (batch): size 20", "allows 1 to 8", "--shapes image=")),
    "static": (
        ROWS.repeat(2, axis=3),
        34,
        ("'image', axis 3: size is 16, the engine takes 8", "give the shape batch:1..4..8x1x8x8"),
    ),
    "no rows": (ROWS[:0], 34, ("'image', axis 0 (batch): size 0", "allows 1 to 8")),
}


@pytest.mark.parametrize("kind", WRONG_ARRAYS)
def test_arrays_that_do_not_fit(kind, refused, here):
    """Type, rank and sizes each have their code; tensor, axis and the allowed range are named."""
    array, code, says = WRONG_ARRAYS[kind]
    np.save(here / "image.npy", array)
    refused(code, "run", "ort.engine", "image.npy", "-o", "out.npz", says=says)


def test_an_input_that_is_missing_or_given_twice(refused):
    """Both are told by name."""
    refused(31, "run", "ort.engine", says=("input 'image' is missing",))
    refused(2, "run", "ort.engine", SEVEN, SEVEN, says=("input 'image' is given twice",))


def test_inconsistent_symbolic_dimensions(refused, here):
    """Two inputs that share a name cannot be given two ranges, nor arrays of two sizes."""
    model("pair (float[n, 2] a, float[n, 2] b) => (float[n, 2] y) { y = Add(a, b) }", here / "pair.onnx")
    build = ("build", "pair.onnx", "-o", "pair.engine", "--shapes")
    refused(20, *build, "a=1..4x2,b=1..8x2", says=("'a', axis 0", "'b', axis 0", "both are 'n'", "the same range"))
    assert enginery(*build, "a=1..4x2,b=1..4x2", cwd=here).code == 0
    np.savez(here / "ab.npz", a=np.ones((2, 2), np.float32), b=np.ones((3, 2), np.float32))
    refused(34, "run", "pair.engine", "ab.npz", says=("'b', axis 0 (n): size is 3, but input 'a' axis 0 has 2",))


@pytest.mark.parametrize(
    ("shape", "code", "said"),
    [
        ("image=foo", 2, "'foo' is not a dimension"),
        ("image", 2, "'image' names no input"),
        ("image=8..1x1x8x8", 2, "8..1..1 is not in the order min <= opt <= max"),
        ("image=-1x1x8x8", 2, "'-1' is not a dimension"),
        ("image=1..99999999999x1x8x8", 2, "dimension 99999999999 is too large"),
        ("image=1x1x8x8,image=2x1x8x8", 2, "the shape of 'image' is given twice"),
        ("image=1..4x1x8", 20, "has 3 dimensions, the graph's has 4"),
        ("image=1..4x1x8x1..9", 20, "axis 3: 1..9..9 was asked for, but the graph has fixed it at 8"),
        ("image=1x1x9x8", 20, "axis 2: 9 was asked for, but the graph has fixed it at 8"),
    ],
)
def test_shapes_that_make_no_sense(shape, code, said, refused):
    """What cannot be read is a usage error, what the graph cannot have is the graph's."""
    refused(code, "build", DIGITS, "-o", "x.engine", *NULL, "--shapes", shape, says=(said,))


def test_axes_that_nobody_sized(refused, here):
    """A dynamic axis that is no batch is not guessed; the mend can be typed as it stands."""
    model("two (float[b, s] x) => (float[b, s] y) { y = Relu(x) }", here / "two.onnx")
    said = refused(2, "build", "two.onnx", "-o", "x.engine", *NULL, says=("dynamic axes 0 (b), 1 (s)",))
    option = said.rpartition("--shapes ")[2].split()[0]
    assert enginery("build", "two.onnx", "-o", "x.engine", *NULL, "--shapes", option, cwd=here).code == 0
    assert enginery("export", "two.onnx", "-o", "open.onnx", cwd=here).code == 0  # a file may stay open


def test_a_batch_that_no_memory_holds(refused):
    """It is refused by its size, before anything of it is made."""
    words = ("optimize", DIGITS, "-o", "x.engine", "--backend", "onnxruntime", "--shapes", "image=1..2000000000x1x8x8")
    refused(34, *words, says=("GiB of memory are free", "'image' is 2000000000x1x8x8", "give smaller sizes"))


# Recorded data


def test_pickled_objects(refused, here):
    """A pickle can run code when it is read, so it never is."""
    np.savez(here / "objects.npz", image=np.array([{"a": 1}] * 4, dtype=object))
    refused(
        35, "run", "ort.engine", "objects.npz", says=("objects.npz holds Python objects (a pickle)", "plain arrays")
    )
    words = ("verify", "ort.engine", DIGITS, "--data", "objects.npz")
    refused(35, *words, says=("objects.npz holds Python objects (a pickle)",))


def test_data_that_holds_nothing(refused, here):
    """An archive without arrays, and arrays without rows."""
    np.savez(here / "empty.npz")
    np.savez(here / "rows.npz", image=ROWS[:0])
    refused(31, "run", "ort.engine", "empty.npz", says=("empty.npz lacks input 'image': it holds nothing",))
    for name, said in (("empty.npz", "it holds nothing"), ("rows.npz", "rows.npz holds no batch")):
        refused(35, "verify", "ort.engine", DIGITS, "--data", name, says=(said,))


def test_labels_of_the_wrong_length(refused, here):
    """Both lengths are told."""
    np.savez(here / "labels.npz", image=ROWS, labels=np.arange(3))
    refused(35, "verify", "ort.engine", DIGITS, "--data", "labels.npz", says=("3 labels for 4 rows",))


def test_a_loader_that_leaves(refused, here):
    """sys.exit in a loader is an error of the data, not the end of the program."""
    (here / "load.py").write_text("import sys\ndef load():\n    sys.exit(0)\n")
    words = ("verify", "ort.engine", DIGITS, "--data", "load.py:load")
    refused(35, *words, says=("the loader load.py:load failed: SystemExit",), PYTHONDONTWRITEBYTECODE="1")


def test_nan_in_the_data_is_counted(here):
    """NaN that both have in the same places is no difference, and is shown."""
    rows = ROWS.copy()
    rows[1] = np.nan
    np.savez(here / "nan.npz", image=rows)
    told = enginery("verify", "ort.engine", DIGITS, "--data", "nan.npz", cwd=here)
    assert told.code == 0, told.said
    assert "NaN/Inf" in told.out
    assert "10/0" in told.out
    assert "10" in enginery("run", "ort.engine", "nan.npz", cwd=here).out.splitlines()[2].split()[-1]


# Numbers and names of options


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--max-error", "-1"), "-1.0 is not in the range x>=0"),
        (("--max-error", "nan"), "nan is no finite number"),
        (("--max-error", "inf"), "inf is no finite number"),
        (("--max-error", "little"), "'little' is not a valid float"),
        (("--range", "image=5..1"), "the range 5..1 is not in the order low <= high"),
        (("--range", "image=a..b"), "'a..b' is not a range"),
        (("--range", "image=nan..1"), "the range nan..1 is not in the order low <= high"),
        (("--seed", "-1"), "-1 is not in the range x>=0"),
    ],
)
def test_numbers_that_make_no_sense(words, said, refused):
    """They are refused before any work."""
    refused(2, "verify", "ort.engine", DIGITS, *words, says=(said,))


@pytest.mark.parametrize("words", [("--time-limit", "nan"), ("--time-limit", "0"), ("--max-latency", "nan")])
def test_limits_that_make_no_sense(words, refused):
    """A limit is a number above 0."""
    refused(2, "optimize", DIGITS, "-o", "x.engine", *words, says=(words[0],))


def test_a_bound_of_zero_is_a_bound(here):
    """Zero is allowed and means: to the last bit. The result is shown, and the exit code says that it failed."""
    told = enginery("verify", "ort.engine", DIGITS, "--max-error", "0", cwd=here)
    assert told.code == 80
    assert "scores" in told.out
    assert "does not agree with" in told.said
    assert "raise --max-error" in told.said
    assert enginery("verify", "null.engine", DIGITS, "--max-error", "0.1", cwd=here).code == 80


def test_unknown_names(refused):
    """Backend, option, precision and objective: the nearest is suggested, and those there are are listed."""
    build = ("build", DIGITS, "-o", "x.engine", *SHAPES)
    refused(3, *build, "--backend", "onnxrutime", says=("unknown backend 'onnxrutime'", "did you mean 'onnxruntime'?"))
    refused(3, *build, "--option", "thread=2", says=("unknown option 'thread'", "did you mean 'threads'?"))
    refused(3, *build, *NULL, "--option", "threads=2", says=("unknown option 'threads'", "there is no option here"))
    refused(3, *build, "--precision", "fp17", says=("unknown precision 'fp17'", "did you mean 'fp16'?"))
    refused(2, *build, "--option", "threads=many", says=("option 'threads' is 'many'", "give a whole number"))
    refused(2, *build, "--option", "threads", says=("'threads' is no option", "NAME=VALUE"))
    optimize = ("optimize", DIGITS, "-o", "x.engine")
    refused(3, *optimize, "--objective", "fast", says=("unknown objective 'fast'", "latency"))
    refused(3, *optimize, "--backend", "openvno", says=("unknown backend 'openvno'", "did you mean 'openvino'?"))


# What is not installed

BLOCK = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


@pytest.fixture
def without(tmp_path) -> Callable[..., dict[str, str]]:
    """Return a function that makes the variables of a process in which libraries cannot be imported."""

    def make(*absent: str) -> dict[str, str]:
        folder = tmp_path / "absent"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(BLOCK.format(absent=set(absent)))
        return {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}

    return make


def test_a_backend_whose_library_is_missing(refused, without, here):
    """The mend is the pip line, for a build, for optimize, and for an engine that was built elsewhere."""
    variables = without("openvino")
    pip = 'run: pip install "enginery[openvino]"'
    build = ("build", DIGITS, "-o", "x.engine", "--backend", "openvino")
    refused(41, *build, says=("backend 'openvino' is not here", pip), **variables)
    manifest = here / "null.engine" / "engine.json"
    manifest.write_text(manifest.read_text().replace('"backend": "null"', '"backend": "openvino"'))
    says = ("null.engine cannot be opened", "'openvino' is not here", pip)
    refused(41, "run", "null.engine", SEVEN, says=says, **variables)


def test_a_source_whose_library_is_missing(refused, without, here):
    """The mend is the pip line."""
    (here / "made.py").write_text("import torch\n\n\ndef make():\n    return torch.nn.ReLU()\n")
    says = ("torch is not installed, and is needed to call made.py:make", 'pip install "enginery[torch]"')
    refused(4, "export", "made.py:make", "-o", "x.onnx", says=says, **without("torch"))


@pytest.mark.parametrize(
    ("python", "said"),
    [("/nowhere/python", "there is no interpreter /nowhere/python"), (str(DIGITS), "there is no interpreter")],
)
def test_an_environment_without_interpreter(python, said, refused):
    """A path that is no program is refused before any work."""
    refused(74, "optimize", DIGITS, "-o", "x.engine", "--environment", f"old={python}", says=(said, "venv/bin/python"))


def test_an_environment_without_enginery(tmp_path, here):
    """It is a row of its own with the pip line; the other candidates go on."""
    import venv

    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    python = tmp_path / "bare" / "bin" / "python"
    words = ("optimize", DIGITS, "-o", "x.engine", "--backend", "onnxruntime", "--environment", f"bare={python}")
    told = enginery(*words, "--json", cwd=here)
    assert told.code == 0, told.said
    (row,) = [row for row in json.loads(told.out)["candidates"] if row["environment"] == "bare"]
    assert row["status"] == "failed"
    assert "holds no usable Enginery" in row["reason"]
    assert f"{python} -m pip install" in row["reason"]


def test_another_model_than_the_engine_was_built_from(refused, here):
    """Inputs of other names or sizes, and outputs of other shapes, are told as what they are."""
    model("other (float[b, 4] x) => (float[b, 4] y) { y = Relu(x) }", here / "other.onnx")
    model("small (float[b, 1, 4, 4] image) => (float[b, 1, 4, 4] scores) { scores = Relu(image) }", here / "small.onnx")
    model("near (float[b, 1, 8, 8] image) => (float[b, 1, 8, 8] scores) { scores = Relu(image) }", here / "near.onnx")
    for name in ("other.onnx", "small.onnx"):
        says = (f"ort.engine was not built from {name}", "name what it was built from (digits.onnx)")
        refused(2, "verify", "ort.engine", name, says=says)
    told = enginery("verify", "ort.engine", "near.onnx", cwd=here)
    assert told.code == 80
    assert "was the engine built from this source?" in told.said
    assert "raise --max-error" not in told.said


@pytest.mark.parametrize(("opset", "said"), [("99", "there is no opset 99"), ("9", "No Adapter")])
def test_an_opset_that_cannot_be_had(opset, said, refused):
    """What there is no version of, and what cannot be converted, is told without a place in other people's code."""
    text = refused(13, "export", DIGITS, "-o", "x.onnx", "--opset", opset, says=(said,))
    assert ".h:" not in text


def test_a_picture_that_is_resized(here):
    """The picture is not of the model's size: that is said."""
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.zeros((20, 30), np.uint8)).save(here / "wide.png")
    told = enginery("run", "ort.engine", "wide.png", cwd=here)
    assert told.code == 0
    assert told.said == "note: wide.png is resized from 30x20 to 8x8 (width x height)\n"


# Engine folders


def damaged(here: Path, change: Callable[[dict], None]) -> None:
    """Change the manifest of ``ort.engine``."""
    file = here / "ort.engine" / "engine.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


READERS = {
    "run": ("run", "ort.engine", SEVEN),
    "inspect": ("inspect", "ort.engine"),
    "view": ("view", "ort.engine", "--no-open"),
    "bench": ("bench", "ort.engine"),
    "verify": ("verify", "ort.engine", DIGITS),
}


@pytest.mark.parametrize("command", READERS)
def test_a_file_that_is_not_the_manifests(command, refused, here):
    """No command opens an artefact that is not the one the manifest was written for."""
    artefact = here / "ort.engine" / "model.onnx"
    data = bytearray(artefact.read_bytes())
    data[1000] ^= 1
    artefact.write_bytes(data)
    refused(52, *READERS[command], says=("ort.engine/model.onnx hashes to", "copy it again, or build it again"))


def test_an_artefact_that_is_a_link_out_of_the_folder(refused, here):
    """A link to a file elsewhere is not followed, though the file be the same."""
    artefact = here / "ort.engine" / "model.onnx"
    artefact.rename(here / "elsewhere.onnx")
    artefact.symlink_to(here / "elsewhere.onnx")
    refused(52, *READERS["run"], says=("ort.engine/model.onnx is missing, and the manifest lists it",))


def test_an_artefact_with_data_outside_the_folder(refused, here):
    """A graph that names weights outside its folder is refused even where its hash was put into the manifest."""
    import hashlib

    import onnx

    pytest.importorskip("onnxruntime", "1.24", reason="ONNX Runtime before 1.24 reads weights outside the folder")
    artefact = here / "ort.engine" / "model.onnx"
    graph = onnx.load(artefact)
    (here / "outside.bin").write_bytes(graph.graph.initializer[0].raw_data)
    tensor = graph.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../outside.bin")
    artefact.write_bytes(graph.SerializeToString())
    file = {"sha256": hashlib.sha256(artefact.read_bytes()).hexdigest(), "bytes": artefact.stat().st_size}
    damaged(here, lambda manifest: manifest["files"].update({"model.onnx": file}))
    refused(42, *READERS["run"], says=("onnxruntime cannot open ort.engine", "outside"))


MANIFESTS = {
    "missing": (None, 51, "ort.engine holds no engine.json, so it is no engine folder"),
    "empty": (b"", 51, "ort.engine/engine.json is damaged: this is not JSON"),
    "garbage": (b"\xff\xfe\x00", 51, "cannot read ort.engine/engine.json"),
    "a list": (b"[]", 51, "ort.engine/engine.json is damaged: "),
    "cut": (
        b'{"schema": 1}',
        51,
        "ort.engine/engine.json is damaged: not a ManifestRecord: ManifestRecord.backend is missing",
    ),
    "newer": (b'{"schema": 99}', 51, "ort.engine/engine.json has format 99, and this Enginery reads format 1"),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_that_cannot_be_read(kind, refused, here):
    """The file is named, with what is wrong in it."""
    text, code, said = MANIFESTS[kind]
    file = here / "ort.engine" / "engine.json"
    file.unlink() if text is None else file.write_bytes(text)
    refused(code, *READERS["run"], says=(said,))


def test_an_engine_of_a_backend_that_is_not_here(refused, here):
    """It is the engine that cannot be opened, and the backends there are are listed."""
    damaged(here, lambda manifest: manifest.update(backend="tensorrt-lite"))
    refused(41, *READERS["run"], says=("ort.engine cannot be opened: unknown backend 'tensorrt-lite'", "onnxruntime"))


def test_a_folder_that_is_not_there(refused):
    """Every reader of engines says so."""
    for words in (("run", "no.engine", SEVEN), ("bench", "no.engine"), ("verify", "no.engine", DIGITS)):
        refused(50, *words, says=("there is no engine folder no.engine",))


# Where results go


@pytest.mark.parametrize(
    ("command", "option"),
    [
        *(("build", name) for name in ("--calibration", "--precision-plan", "--weights")),
        *(("optimize", name) for name in ("--calibration", "--data", "--resume")),
        *(("verify", name) for name in ("--against", "--data")),
    ],
)
def test_an_empty_path_is_not_this_folder(command, option, refused):
    """A variable of the shell that is empty names nothing; the folder at hand may hold other people's pictures."""
    refused(2, command, DIGITS, *(("-o", "x.engine") if command != "verify" else ()), option, "",
            says=(option, "the path is empty"))  # fmt: skip


def test_an_output_where_something_else_stands(refused, here):
    """A file, and a folder of other things, are left alone; an empty name is refused."""
    (here / "file").write_text("mine")
    (here / "other").mkdir()
    (here / "other" / "mine").write_text("mine")
    for name in ("x.onnx", "x.npz", "x.html"):
        (here / name).mkdir()
    build = ("build", DIGITS, *NULL, "-o")
    refused(61, *build, "file", says=("file is a file", "name a folder"))
    refused(61, *build, "other", says=("other is a folder with other things in it", "name another output folder"))
    refused(61, *build, ".", says=("is a folder with other things in it",))
    refused(60, *build, "file/x.engine", says=("file is a file, no folder",))
    refused(2, *build, "", says=("the output has an empty name",))
    refused(61, "optimize", DIGITS, "-o", "other", says=("is a folder with other things in it",))
    refused(61, "export", DIGITS, "-o", "x.onnx", says=("x.onnx is a folder",))
    refused(61, "run", "ort.engine", SEVEN, "-o", "x.npz", says=("x.npz is a folder",))
    refused(61, "view", DIGITS, "-o", "x.html", "--no-open", says=("x.html is a folder",))


def test_outputs_of_the_wrong_kind(refused):
    """The mend is a name that would do."""
    refused(2, "export", DIGITS, "-o", "x.txt", says=("x.txt is no name for an ONNX file", "x.onnx"))
    refused(2, "run", "ort.engine", SEVEN, "-o", "x.txt", says=("cannot be written as x.txt", ".npz"))
    refused(2, "view", DIGITS, "-o", "x.txt", "--no-open", says=("x.txt is no name for a page", "x.html"))


def test_an_output_inside_an_engine(refused):
    """An engine folder holds what its manifest lists, and is replaced as a whole."""
    says = ("would be inside the engine", "ort.engine", "name an output outside of it")
    refused(60, "build", DIGITS, *NULL, "-o", "ort.engine/x.engine", says=says)
    refused(60, "export", DIGITS, "-o", "ort.engine/deep/x.onnx", says=says)
    refused(60, "run", "ort.engine", SEVEN, "-o", "ort.engine/out.npz", says=says)
    refused(60, "view", DIGITS, "-o", "ort.engine/x.html", "--no-open", says=says)


def test_outputs_that_are_fine(here):
    """A trailing slash, new folders, other alphabets, and relative paths from elsewhere."""
    below = here / "new" / "模型"
    below.mkdir(parents=True)
    source = os.path.relpath(DIGITS, below)
    outputs = ("trailing.engine/", "deep/er/x.engine", "../ü ñ.engine", here / "absolute.engine")
    for output in outputs:
        told = enginery("build", source, *NULL, "-o", output, cwd=below)
        assert told.code == 0, told.said
        assert enginery("run", output, SEVEN, cwd=below).code == 0
    assert {path.name for path in below.iterdir()} == {"trailing.engine", "deep"}
    assert {path.name for path in (here / "new").iterdir()} == {"模型", "ü ñ.engine"}


WRITERS = {
    "build": ("build", DIGITS, *SHAPES, "-o", "{}/x.engine"),
    "build in process": ("build", DIGITS, *NULL, "--in-process", "-o", "{}/x.engine"),
    "optimize": ("optimize", DIGITS, *SHAPES, "--backend", "onnxruntime", "-o", "{}/x.engine"),
    "export": ("export", DIGITS, "-o", "{}/x.onnx"),
    "run": ("run", "ort.engine", "rows.npy", "-o", "{}/x.npz"),
    "view": ("view", DIGITS, "--no-open", "-o", "{}/x.html"),
}


def to(folder: Path, words: tuple[object, ...]) -> list[str]:
    """Put the folder's name into the words of a writer."""
    return [str(word).format(folder.name) for word in words]


@pytest.mark.parametrize("command", WRITERS)
def test_a_full_disk(command, refused, here):
    """A disk that is full, or fills up on the way, is told as that, and has all its space again."""
    np.save(here / "rows.npy", ROWS)
    with mounted(here / "disk", "-t", "tmpfs", "-o", "size=16k,nr_inodes=100", "tmpfs") as disk:
        (disk / "kept").write_bytes(bytes(4 * 4096))
        refused(62, *to(disk, WRITERS[command]), says=("no space is left to write", "free some space", "MiB free here"))
        assert [file.name for file in disk.iterdir()] == ["kept"]


@pytest.mark.parametrize("size", [400, 600])
def test_a_disk_that_is_full_for_the_library(size, refused, here):
    """Where the backend's own library cannot write its file, that is told, not its words about the graph."""
    with mounted(here / "disk", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs") as disk:
        refused(62, *to(disk, WRITERS["build"]), says=("no space is left to write",))
        assert list(disk.iterdir()) == []


@pytest.mark.parametrize("command", WRITERS)
def test_a_folder_that_may_not_be_written_to(command, refused, here):
    """A read-only file system and one that takes no files are refused before any work."""
    np.save(here / "rows.npy", ROWS)
    with mounted(here / "disk", "-t", "tmpfs", "-o", "ro", "tmpfs") as disk:
        said = refused(60, *to(disk, WRITERS[command]), says=("cannot write", "Read-only file system", "may write to"))
        assert "] export" not in said
    words = [str(word).format("/proc") for word in WRITERS[command]]
    refused(60, *words, says=("cannot write /proc/x", "name an output folder"))


def test_an_engine_that_may_not_be_written_to(here):
    """It can be run, verified and timed; that the record is not kept is said."""
    engine = here / "ort.engine"
    with mounted(engine, "--bind", str(engine)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(engine)], check=True)  # noqa: S607
        for words in (READERS["verify"], (*READERS["bench"], "--time-limit", "0.5")):
            told = enginery(*words, cwd=here)
            assert told.code == 0, told.said
            assert "the record is not kept in the engine" in told.said
            assert told.out
        assert enginery(*READERS["run"], cwd=here).code == 0


# Ends


def started(here: Path, *words: object, until: str) -> subprocess.Popen[str]:
    """Start the program, and return when it has said on stderr that it is at a step."""
    command = [sys.executable, "-m", "enginery", *map(str, words)]
    process = subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if until in line:
            return process
    raise AssertionError(f"it never said {until!r}, and ended with {process.wait()}")


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
@pytest.mark.parametrize(
    ("number", "step"),
    [
        (signal.SIGINT, "simplify"),
        (signal.SIGINT, "build and verify"),
        (signal.SIGINT, "] time"),
        (signal.SIGTERM, "build and verify"),
        (signal.SIGTERM, "] time"),
        (signal.SIGHUP, "simplify"),
    ],
)
def test_a_signal_in_the_middle(number, step, here):
    """Ctrl-C, SIGTERM and a closed terminal end everything in order: no worker, no file, one line, their own codes."""
    before = names(here)
    words = ("optimize", DIGITS, *SHAPES, "-o", "new/x.engine", "--backend", "onnxruntime")
    with started(here, *words, until=step) as process:
        time.sleep(0.2)
        process.send_signal(number)
        out, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 128 + number, said
    assert out == ""
    assert said.splitlines()[-1].endswith("; nothing was written")
    assert "Traceback" not in said
    assert names(here) == before
    wait_for_no_workers(here)


def test_a_parent_that_keeps_signals_away_is_obeyed(here):
    """Under nohup a closed terminal ends nothing."""
    command = ["nohup", sys.executable, "-m", "enginery", "build", DIGITS, *NULL, "-o", "x.engine"]
    with subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "simplify" in line:
                break
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    assert (here / "x.engine" / "engine.json").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="workers die with their parent on Linux alone")
def test_a_parent_that_is_killed(here):
    """Its workers die with it; the next run to the same output removes what it has left, and works."""
    before = set(names(here))
    words = (DIGITS, *SHAPES, "-o", "x.engine", "--backend", "onnxruntime")
    for step in ("build and verify", "] time"):
        with started(here, "optimize", *words, until=step) as process:
            process.kill()
        wait_for_no_workers(here)
        left = {name for name in set(names(here)) - before if "/" not in name}
        assert len(left) == 1, left  # the first one's is gone
        assert left.pop().startswith(".x.engine.")
    told = enginery("build", *words, cwd=here)
    assert told.code == 0, told.said
    assert {name for name in set(names(here)) - before if "/" not in name} == {"x.engine"}


def test_two_runs_to_one_output_at_once(here):
    """Both end well, one engine stands there whole, and nothing else."""
    before = set(names(here))
    command = [sys.executable, "-m", "enginery", "optimize", str(DIGITS), "-o", "x.engine", "--backend", "onnxruntime"]
    both = [
        subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for process in both:
        said = process.communicate(timeout=LIMIT_S)[1]
        assert process.returncode == 0, said
    assert {name for name in set(names(here)) - before if "/" not in name} == {"x.engine"}
    assert enginery("run", "x.engine", SEVEN, cwd=here).code == 0
