"""Wheels of TensorRT that do not fit each other, Python, the driver or the GPU, each with the line that mends it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from enginery import gpu_packages, tensorrt_packages
from enginery.machine import describe_machine


def machine(gpu="NVIDIA L4", capability="8.9", driver="580.65.06", python="3.10.14"):
    """Return a machine with that GPU; with no driver, without one."""
    gpus = (f"{gpu}, 23034 MiB, compute capability {capability}",) if driver else ()
    return replace(describe_machine(), gpus=gpus, driver=driver, python=python, cuda=None)


WHOLE_10 = {
    "tensorrt": "10.13.3.9", "tensorrt_cu13": "10.13.3.9", "tensorrt_cu13_libs": "10.13.3.9",
    "tensorrt_cu13_bindings": "10.13.3.9", "cuda-bindings": "13.0.1", "numpy": "2.1.0",
}  # fmt: skip
WHOLE_8_6 = {"tensorrt": "8.6.1", "tensorrt-libs": "8.6.1", "tensorrt-bindings": "8.6.1", "cuda-python": "12.9.0"}


@pytest.mark.parametrize(
    ("packages", "here"),
    [
        (WHOLE_10, machine()),
        (WHOLE_8_6, machine("NVIDIA H200", "9.0", "570.86.15")),
        ({"tensorrt_rtx": "1.7.1.116", "tensorrt_rtx_cu13_libs": "1.7.1.116"}, machine("GeForce RTX 5090", "12.0")),
        ({"tensorrt_rtx": "1.7.1.116", "tensorrt_rtx_cu13_libs": "1.7.1.116"}, machine(driver=None, python="3.13.1")),
        ({"torch-tensorrt": "2.9", "numpy": "2"}, machine("NVIDIA Tesla V100", "7.0")),
        ({}, machine()),
    ],
)  # fmt: skip
def test_what_fits_has_no_row(packages, here):
    """A whole set of one version, on a Python and a GPU that it is for."""
    assert tensorrt_packages.examine(packages, here) == []


def test_parts_of_several_versions_are_broken():
    """The newest is installed again as a whole."""
    packages = {**WHOLE_10, "tensorrt_cu13_libs": "10.9.0.34"}
    (row,) = tensorrt_packages.examine(packages, machine())
    assert row.status == "broken"
    assert "tensorrt-cu13-libs 10.9.0.34" in row.why
    assert row.mend == "pip install --force-reinstall tensorrt-cu13==10.13.3.9"


@pytest.mark.parametrize(("driver", "kept", "gone"), [("580.65.06", "13", "12"), ("550.54.15", "12", "13")])
def test_two_cudas_keep_the_one_that_the_driver_runs(driver, kept, gone):
    """Both bring the module ``tensorrt_bindings``: which one is imported is luck."""
    packages = {f"tensorrt-cu{major}{part}": "10.13.3.9" for major in (12, 13) for part in ("", "-libs", "-bindings")}
    (row,) = tensorrt_packages.examine(packages, machine(driver=driver))
    assert row.name == "tensorrt CUDA"
    assert row.mend == (
        f"pip uninstall -y tensorrt-cu{gone} tensorrt-cu{gone}-bindings tensorrt-cu{gone}-libs && "
        f"pip install --force-reinstall tensorrt-cu{kept}==10.13.3.9"
    )


@pytest.mark.parametrize(
    ("version", "python", "why", "mend"),
    [
        ("8.6.1", "3.12.4", "has wheels for Python 3.6 to 3.11, this is 3.12.4", 'pip install -U "tensorrt>=10.0"'),
        ("8.6.1", "3.13.0", "this is 3.13.0", 'pip install -U "tensorrt>=10.8"'),
        ("10.3.0", "3.14.0", "Python 3.8 to 3.12", 'pip install -U "tensorrt>=11.1"'),
        (
            "11.4.0", "3.15.0", "Python 3.8 to 3.14",
            "python3.14 -m venv trt && trt/bin/pip install enginery tensorrt==11.4.0",
        ),
    ],
)  # fmt: skip
def test_a_python_without_wheels(version, python, why, mend):
    """The first version that has wheels is named; where none has, a Python is."""
    (row,) = tensorrt_packages.examine({"tensorrt": version}, machine("NVIDIA A10", "8.6", python=python))
    assert row.name == "tensorrt Python"
    assert why in row.why
    assert row.mend == mend


@pytest.mark.parametrize(
    ("version", "gpu", "capability", "mend"),
    [
        ("10.5.0", "Tesla V100", "7.0", 'pip install "tensorrt>=10.0,<10.5"'),
        ("10.3.0", "Tesla P100", "6.0", 'pip install "tensorrt>=8.6,<10.0"'),
        ("8.6.1", "NVIDIA GeForce RTX 5090", "12.0", 'pip install -U "tensorrt>=10.8"'),
        ("10.7.0", "NVIDIA B200", "10.0", 'pip install -U "tensorrt>=10.8"'),
        ("11.4.0", "Tesla K80", "3.7", "enginery build MODEL --backend onnxruntime"),
    ],
)
def test_a_gpu_that_a_version_does_not_run_on(version, gpu, capability, mend):
    """The row names the GPU, what the version runs on, and a version that runs."""
    (row,) = tensorrt_packages.examine({"tensorrt": version}, machine(gpu, capability))
    assert row.name == "tensorrt GPU"
    assert f"{gpu} has {capability}" in row.why
    assert row.mend == mend


@pytest.mark.parametrize(("gpu", "capability"), [("NVIDIA H200", "9.0"), ("NVIDIA B200", "10.0")])
def test_rtx_on_a_gpu_of_a_data_centre(gpu, capability):
    """TensorRT is for those."""
    (row,) = tensorrt_packages.examine({"tensorrt-rtx": "1.7.1.116"}, machine(gpu, capability))
    assert f"does not run on {gpu} (compute capability {capability})" in row.why
    assert row.mend == 'pip install "enginery[tensorrt]"'


def test_cuda_python_that_is_too_new_for_the_driver():
    """It brings CUDA's runtime, which the driver must run."""
    packages = {"tensorrt": "10.13.3.9", "cuda-python": "13.0.1", "cuda-bindings": "13.0.1"}
    (row,) = tensorrt_packages.examine(packages, machine(driver="570.86.15"))
    assert row.why == "it is made for CUDA 13, and driver 570.86.15 runs CUDA 12"
    assert row.mend == 'pip install "cuda-python>=12,<13"'


def test_rtx_wheels_without_a_gpu_are_of_use():
    """They build ahead of time; the other CUDA wheels there are not."""
    here = machine(driver=None)
    rows = gpu_packages.examine({"tensorrt_rtx_cu13_libs": "1.7", "cupy-cuda12x": "13"}, here, device_here=False)
    told = {(row.status, row.mend) for row in rows if row.name == "CUDA wheels"}
    assert told == {("here", ""), ("missing", "pip uninstall -y cupy-cuda12x")}


def test_cuda_11_wheels_need_their_driver():
    """TensorRT 8.5 is for CUDA 11."""
    rows = gpu_packages.examine({"nvidia-cublas-cu11": "11.11"}, machine(driver="440.33"), device_here=True)
    assert "CUDA 11 needs driver 450 or later, 440.33 is here" in rows[-1].why


@pytest.mark.parametrize(
    ("here", "line"),
    [
        (machine(), ""),
        (machine(driver=None), ""),
        (machine("NVIDIA H200", "9.0", "570.86.15"), 'pip install enginery tensorrt-cu12 "cuda-python>=12,<13"'),
        (
            machine("Tesla V100", "7.0", "570.86.15"),
            'pip install enginery "tensorrt>=10.0,<10.5" "cuda-python>=12,<13"',
        ),
        (machine("Tesla K80", "3.7", "470.82"), ""),
    ],
)
def test_what_to_install_where_nothing_is(here, line):
    """The newest wheels are for the newest CUDA: an older driver, and an older GPU, need others."""
    assert tensorrt_packages.install_line("tensorrt", here) == line
    assert tensorrt_packages.install_line("torch", here) == ""
