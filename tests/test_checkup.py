"""What doctor finds: missing, broken and mixed installations, each with the line that mends it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from enginery import backends, checkup, gpu_packages, optional
from enginery.machine import describe_machine
from enginery.plain import from_json, to_json
from enginery.records import DoctorRecord, DoctorRow


@pytest.fixture
def machine():
    """Return this machine without a GPU."""
    return replace(describe_machine(), driver=None, gpus=(), cuda=None)


def with_driver(machine, driver):
    """Return the machine with an NVIDIA GPU."""
    return replace(machine, driver=driver, gpus=("NVIDIA T4, 16 GiB, compute capability 7.5",))


def test_examine_names_every_backend_and_core_dependency(monkeypatch, machine):
    """Each backend of the table and each dependency has a row, and the record survives JSON."""
    monkeypatch.setattr(checkup, "describe_machine", lambda: machine)
    monkeypatch.setattr(checkup, "failure_of", lambda *_: ("", '{"available": true, "runs": true, "version": "1"}\n'))
    record = checkup.examine()
    names = {(row.group, row.name) for row in record.rows}
    assert {("backend", name) for name in backends.names()} <= names
    assert {("core", "numpy"), ("core", "onnx"), ("core", "onnxruntime"), ("python", "python")} <= names
    assert {("extra", "torch"), ("extra", "openvino"), ("extra", "netron"), ("extra", "tensorrt")} <= names
    assert from_json(DoctorRecord, to_json(record)) == record


def test_a_library_that_is_missing_has_its_pip_line(monkeypatch, machine):
    """The mend of a missing extra is the extra's line; of a core dependency, its own."""
    monkeypatch.setattr(optional, "version", lambda _: None)
    extra = checkup._library_row(checkup.Requirement("torch", "2.7", "torch"), machine)
    core = checkup._library_row(checkup.Requirement("numpy", "1.26", ""), machine)
    assert (extra.status, extra.mend) == ("missing", 'pip install "enginery[torch]"')
    assert (core.status, core.mend) == ("missing", 'pip install "numpy>=1.26"')


def test_a_gpu_library_without_a_gpu_is_no_one_s_fault(monkeypatch, machine):
    """TensorRT is not recommended to a machine that cannot run it."""
    monkeypatch.setattr(optional, "version", lambda _: None)
    row = checkup._library_row(checkup.Requirement("tensorrt", "8.6", "tensorrt"), machine)
    assert "needs an NVIDIA GPU" in row.why
    assert row.mend == ""


def test_a_library_under_another_name_is_here(monkeypatch, machine):
    """The wheels for one CUDA bring the same module as the plain name."""
    monkeypatch.setattr(optional, "version", {"tensorrt-cu12": "10.13.3.9"}.get)
    monkeypatch.setattr(checkup, "failure_of", lambda _: ("", ""))
    row = checkup._library_row(checkup.Requirement("tensorrt", "8.6", "tensorrt"), machine)
    assert (row.status, row.version) == ("here", "10.13.3.9")


def test_tensorrt_is_recommended_as_the_driver_runs_it(monkeypatch, machine):
    """The newest wheels are for CUDA 13, which driver 570 does not run."""
    monkeypatch.setattr(optional, "version", lambda _: None)
    row = checkup._library_row(checkup.Requirement("tensorrt", "8.6", "tensorrt"), with_driver(machine, "570.86"))
    assert row.mend == 'pip install enginery tensorrt-cu12 "cuda-python>=12,<13"'


def test_a_backend_is_recommended_where_it_can_run(monkeypatch, machine):
    """Without a GPU nothing is to be mended; with one, the line fits its driver."""
    missing = '{"available": false, "version": null, "reason": "not installed", "mend": "run: pip install it"}'
    monkeypatch.setattr(checkup, "failure_of", lambda *_: ("", missing))
    without = checkup._backend_row("tensorrt", machine)
    assert (without.status, without.mend) == ("missing", "")
    assert without.why == "not installed; needs an NVIDIA GPU, none is here"
    assert "tensorrt-cu12" in checkup._backend_row("tensorrt", with_driver(machine, "570.86")).mend
    assert checkup._backend_row("tensorrt", with_driver(machine, "580.65")).mend == "pip install it"
    assert checkup._backend_row("openvino", machine).mend == "pip install it"


def test_a_backend_that_only_builds_says_so(monkeypatch, machine):
    """It is here, and the row says what it cannot do, and why."""
    found = '{"available": true, "runs": false, "version": "1.7", "reason": "no GPU is here", "mend": "go elsewhere"}'
    monkeypatch.setattr(checkup, "failure_of", lambda *_: ("", found))
    row = checkup._backend_row("tensorrt_rtx", machine)
    assert (row.status, row.why, row.mend) == ("here", "only builds: no GPU is here", "")


def test_a_library_that_is_too_old_is_broken(monkeypatch, machine):
    """The mend raises it to what is needed."""
    monkeypatch.setattr(optional, "version", lambda _: "1.9.3")
    row = checkup._library_row(checkup.Requirement("numpy", "1.26", ""), machine)
    assert (row.status, row.why) == ("broken", "1.26 or later is needed")
    assert row.mend == 'pip install -U "numpy>=1.26"'


def test_a_library_whose_import_fails_is_broken(monkeypatch, machine):
    """The last line of its error is told."""
    monkeypatch.setattr(optional, "version", lambda _: "2.0")
    monkeypatch.setattr(checkup, "failure_of", lambda _: ("ImportError: libGL.so.1 is missing", ""))
    row = checkup._library_row(checkup.Requirement("pillow", "", "pictures"), machine)
    assert row.status == "broken"
    assert row.why == "import PIL: ImportError: libGL.so.1 is missing"
    assert "pip install --force-reinstall" in row.mend


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("print('fine')", ""),
        ("raise RuntimeError('no such thing')", "RuntimeError: no such thing"),
        ("import os; os.abort()", "died of signal 6"),
        ("import sys; sys.exit(3)", "left with exit code 3"),
        ("import time; time.sleep(30)", "took more than 1 s"),
    ],
)
def test_a_process_of_its_own_fails_by_itself(code, why):
    """Errors, crashes and hangs of an import end as one line."""
    limit = 1.0 if "sleep" in code else 30.0
    assert checkup.failure_of(code, limit_s=limit)[0] == why


def test_a_backend_whose_library_is_broken_is_broken():
    """A cheap probe does not import the library; doctor does."""
    rows = [
        DoctorRow("backend", "openvino", "1", "here"),
        DoctorRow("extra", "openvino", "1", "broken", "it crashed", "pip install it"),
    ]
    found = checkup._without_broken(rows[:1], rows[1:])
    assert [(row.group, row.status, row.why, row.mend) for row in found] == [
        ("backend", "broken", "it crashed", "pip install it")
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("numpy>=1.26", checkup.Requirement("numpy", "1.26", "")),
        ("openvino>=2024.6; extra == 'all'", checkup.Requirement("openvino", "2024.6", "all")),
        ('tensorrt-rtx (>=1.4) ; extra == "rtx"', checkup.Requirement("tensorrt-rtx", "1.4", "rtx")),
        ("plain", checkup.Requirement("plain", "", "")),
        ("enginery[torch]; extra == 'all'", None),
    ],
)
def test_requirements_are_read(text, expected):
    """Every form that build tools write is read."""
    assert checkup.parse_requirement(text) == expected


def test_a_folder_that_cannot_be_written_is_broken():
    """Writing is tried, not guessed."""
    row = checkup._folder_row("temporary folder", Path("/proc/nowhere"))
    assert row.status == "broken"
    assert row.mend == "export TMPDIR=/another/folder"


def test_no_driver_and_no_wheels_is_only_told(machine):
    """A machine without a GPU has nothing to mend."""
    rows = gpu_packages.examine({"numpy": "2"}, machine, device_here=False)
    assert [(row.status, row.mend) for row in rows] == [("missing", "")]


def test_wheels_without_a_driver(machine):
    """CUDA wheels that nothing can run are named, with the line that removes them."""
    row = gpu_packages.examine({"nvidia-cublas-cu12": "12.4"}, machine, device_here=False)[-1]
    assert "no driver to run on" in row.why
    assert row.mend == "pip uninstall -y nvidia-cublas-cu12"


def test_a_driver_without_wheels(machine):
    """A GPU that no library uses is a pity, with its line."""
    row = gpu_packages.examine({}, with_driver(machine, "580.65"), device_here=True)[-1]
    assert (row.status, row.mend) == ("missing", 'pip install "enginery[tensorrt]"')


def test_a_driver_that_does_not_answer_is_broken(machine):
    """The kernel module is loaded, and nvidia-smi says nothing."""
    row = gpu_packages.examine({}, machine, device_here=True)[0]
    assert row.status == "broken"
    assert "nvidia-smi" in row.why


@pytest.mark.parametrize(("driver", "gone"), [("550.54", "tensorrt-cu13-libs"), ("580.65", "cupy-cuda12x")])
def test_mixed_cuda_wheels_keep_what_the_driver_runs(driver, gone, machine):
    """The newest major version that the driver runs stays."""
    packages = {"cupy-cuda12x": "13", "tensorrt-cu13-libs": "10.13"}
    rows = gpu_packages.examine(packages, with_driver(machine, driver), device_here=True)
    mixed = next(row for row in rows if row.name == "CUDA mix")
    assert (mixed.status, mixed.mend) == ("broken", f"pip uninstall -y {gone}")


def test_wheels_that_are_too_new_for_the_driver(machine):
    """CUDA 13 needs driver 580."""
    rows = gpu_packages.examine({"nvidia-cudnn-cu13": "9"}, with_driver(machine, "550.54"), device_here=True)
    assert rows[-1].status == "broken"
    assert "CUDA 13 needs driver 580 or later, 550.54 is here" in rows[-1].why


def test_two_packages_with_the_same_files(machine):
    """The packages onnxruntime and onnxruntime-gpu overwrite each other."""
    packages = {"onnxruntime": "1.20", "onnxruntime-gpu": "1.19"}
    row = gpu_packages.examine(packages, machine, device_here=False)[-1]
    assert row.status == "broken"
    assert row.mend == "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
