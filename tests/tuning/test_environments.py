"""A second, real virtual environment with another ONNX Runtime: one run compares both, and what is amiss is a row."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import enginery
from enginery import optional, pipeline, storage
from enginery.backends import onnxruntime
from enginery.backends.base import Availability
from enginery.cli.main import main
from enginery.environments import install_line
from enginery.errors import BackendUnavailableError, EnvironmentSetupError, UsageError
from enginery.spec import BenchSpec, OptimizeSpec, parse_shapes
from enginery.tuning import race

OTHER = "1.22.1"
"""An ONNX Runtime that supports every Python that Enginery does, and is not the newest."""

SOURCES = Path(enginery.__file__).parents[1]
PACKAGES = [path for path in sys.path if path.endswith("site-packages")]
DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "digits.onnx"
QUICK = BenchSpec(warmup_ms=2, turn_ms=5, min_samples=3, min_turns=2, stable_within=10, limit_s=0.5)


def make_environment(folder, *shared):
    """Make a virtual environment that looks for packages in its own folder first, then in `shared`; return both."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = next((folder / "lib").glob("python*")) / "site-packages"
    (site / "shared.pth").write_text("".join(f"{path}\n" for path in shared))
    return folder / "bin" / "python", site


@pytest.fixture(scope="session")
def old(tmp_path_factory):
    """Return the interpreter of an environment that holds ONNX Runtime `OTHER`, and everything else of this one."""
    if optional.version("onnxruntime") == OTHER:
        pytest.skip(f"this environment has ONNX Runtime {OTHER} itself")
    python, site = make_environment(tmp_path_factory.mktemp("old") / "venv", SOURCES, *PACKAGES)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command = [*pip, "--only-binary=:all:", "--target", str(site), f"onnxruntime=={OTHER}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip cannot install ONNX Runtime {OTHER}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return str(python)


def spec(**environments):
    """Return what is asked for: a quick look at ONNX Runtime here and in other environments."""
    shapes = parse_shapes(["image=1..4..8x1x8x8"])
    return OptimizeSpec(shapes=shapes, backends=("onnxruntime",), environments=environments, bench=QUICK)


def choose_old(records, _spec):
    """Choose the candidate of the environment `old`, be it fast or not."""
    label = next(row.label for row in records if row.environment == "old")
    return tuple(replace(row, status="chosen") if row.label == label else row for row in records), label


@pytest.fixture(scope="session")
def chosen_elsewhere(old, tmp_path_factory):
    """Return what `optimize` found where the other environment's engine was chosen."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(race, "choose", choose_old)
        return pipeline.optimize(DIGITS, spec=spec(old=old), output=tmp_path_factory.mktemp("chosen") / "old.engine")


def test_two_versions_in_one_table(old, tmp_path, capsys):
    """One command compares two versions of a library; environments that do not work are rows with the pip line."""
    bare, _ = make_environment(tmp_path / "bare")
    stale, site = make_environment(tmp_path / "stale", *PACKAGES)
    (site / "enginery").mkdir()
    for name, text in (("__init__", "__version__ = '0.0.9'"), ("jobs", STALE)):
        (site / "enginery" / f"{name}.py").write_text(text)
    no_python = tmp_path / "program"
    no_python.write_text("#!/bin/sh\nexit 3\n")
    no_python.chmod(0o755)
    named = {"old": old, "bare": bare, "stale": stale, "program": no_python}
    command = [f"--environment={name}={python}" for name, python in named.items()]
    command += ["--backend", "onnxruntime", "--shapes", "image=1..4..8x1x8x8", "-o", str(tmp_path / "digits.engine")]
    assert main(["optimize", str(DIGITS), *command, "--no-simplify", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    rows = {row["label"]: row for row in record["candidates"]}
    versions = {row["environment"]: row["build"]["backend_version"] for row in rows.values() if row["build"]}
    assert versions == {"here": optional.version("onnxruntime"), "old": OTHER}
    assert rows["onnxruntime @old"]["verify"]["passed"]
    assert rows["onnxruntime @old"]["bench"]["p50_ms"] > 0
    failed = {label: row["reason"] for label, row in rows.items() if row["status"] == "failed"}
    assert list(failed) == ["@bare", "@stale", "@program"]
    assert "No module named 'enginery'" in failed["@bare"]
    assert failed["@bare"].endswith(f"run: {install_line(str(bare))}")
    assert f"holds Enginery 0.0.9, this is {enginery.__version__}; run: {install_line(str(stale))}" in failed["@stale"]
    said = f"{no_python} holds no usable Enginery: it ended without a word; run: {install_line(str(no_python))}"
    assert failed["@program"] == said


STALE = """
import json, os, sys
hello = {"enginery": "0.0.9", "protocol": 1, "python": "3.10.0"}
os.write(int(sys.argv[2]), (json.dumps(hello) + "\\n").encode())
sys.stdin.read()
"""


@pytest.mark.parametrize("name", ["no/python", "."])
def test_a_path_without_a_program_is_refused_before_any_work(tmp_path, name):
    """A slip in a path is told at once, not as a row after minutes of work."""
    with pytest.raises(EnvironmentSetupError, match="there is no interpreter"):
        pipeline.optimize(DIGITS, spec=spec(lost=str(tmp_path / name)), output=tmp_path / "digits.engine")
    assert list(tmp_path.iterdir()) == []


def test_the_engine_of_another_environment_says_so(chosen_elsewhere, old):
    """Manifest, notes and the table say which interpreter opens the engine as it was timed."""
    manifest = storage.read_manifest(chosen_elsewhere.engine)
    assert (manifest.environment, manifest.interpreter) == ("old", old)
    assert manifest.backend_version == manifest.machine.libraries["onnxruntime"] == OTHER
    note = chosen_elsewhere.record.notes[-1]
    assert note.startswith(f"the engine belongs to the environment 'old': open it with {old} (Python 3.")
    assert note.endswith(f"onnxruntime {OTHER})")
    here = optional.version("onnxruntime")
    assert f"onnxruntime {here}; @old: onnxruntime {OTHER}" in " ".join(chosen_elsewhere.table.split())


def test_another_version_opens_it_loudly(chosen_elsewhere, caplog):
    """This environment's version opens the engine, and says that it is another."""
    image = np.zeros((2, 1, 8, 8), np.float32)
    with caplog.at_level(logging.WARNING, "enginery"), chosen_elsewhere.open() as session:
        assert session(image).shape == (2, 10)
    assert f"was built with onnxruntime {OTHER} and is opened with" in caplog.text
    assert "of the environment 'old'" in caplog.text


def test_its_own_interpreter_opens_it_quietly(chosen_elsewhere, old, tmp_path):
    """The command that is given at the end works, without a warning."""
    np.save(tmp_path / "image.npy", np.zeros((2, 1, 8, 8), np.float32))
    command = [old, "-m", "enginery", "run", str(chosen_elsewhere.engine), str(tmp_path / "image.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2x10" in done.stdout


def test_without_the_backend_the_error_names_the_interpreter(small_model, tmp_path, monkeypatch):
    """An engine whose backend is not here says which interpreter opens it."""
    ir.save(small_model, tmp_path / "small.onnx")
    built = enginery.build(tmp_path / "small.onnx", tmp_path / "small.engine", in_process=True).folder
    manifest = replace(storage.read_manifest(built), environment="old", interpreter="/opt/old/bin/python")
    storage.write_manifest(built, manifest)
    gone = Availability(available=False, reason="it is not installed", mend="run: pip install it")
    monkeypatch.setattr(onnxruntime, "probe", lambda: gone)
    with pytest.raises(BackendUnavailableError, match="it is not installed") as caught:
        enginery.load(built)
    mend = "open it with /opt/old/bin/python, of the environment 'old'; or run: pip install it"
    assert caught.value.mend == mend


def test_an_environment_cannot_be_called_here():
    """`here` is this interpreter's own name in every row."""
    with pytest.raises(UsageError, match="'here' is this interpreter's own environment"):
        spec(here=sys.executable)
