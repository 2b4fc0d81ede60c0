"""An engine folder opened: its plan deserialised, with TensorRT's own words and our diagnosis where that fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from enginery.backends.base import Runner
from enginery.backends.tensorrt import runtime_cache, versions
from enginery.backends.tensorrt.contexts import Opened
from enginery.backends.tensorrt.cuda import DeviceInfo, load_cuda
from enginery.backends.tensorrt.diagnosis import meaning_of
from enginery.backends.tensorrt.log import BuildLog
from enginery.backends.tensorrt.options import listed
from enginery.backends.tensorrt.plugins import load_plugins
from enginery.backends.tensorrt.runner import TensorRTRunner
from enginery.backends.tensorrt.tensors import read_tensors
from enginery.backends.tensorrt.timing_cache import Device
from enginery.backends.tensorrt.versions import Api
from enginery.errors import BackendUnavailableError, BuildError
from enginery.machine import describe_machine
from enginery.records import ManifestRecord, TargetRecord
from enginery.spec import Option

__all__ = ["deserialize", "open_plan"]

_PLAN = "model.plan"


def open_plan(api: Api, folder: Path, manifest: ManifestRecord, options: Mapping[str, Option]) -> Runner:
    """Open the ``model.plan`` of an engine folder.

    Args:
        api: the library to run it with.
        folder: the engine folder.
        manifest: its manifest, read and checked.
        options: a value for each of `enginery.backends.tensorrt.options.RULES`.

    Raises:
        BackendUnavailableError: no GPU, or another than the engine was built for.
        BuildError: TensorRT refused the plan; the message has its own words.
        RunError: the GPU's memory does not hold it.
    """
    cuda = load_cuda()
    index = int(options["device"])
    cuda.set_device(index)
    if options["spin"]:  # of the thread's device, so not before it is set
        cuda.spin_while_waiting()
    here = cuda.device(index)
    if manifest.target is not None:
        check_target(api, manifest.target, here, options)
    log = BuildLog(api)
    load_plugins(api, listed(options["plugins"]), log.logger)
    engine = deserialize(api, folder / _PLAN, log, host_code=bool(options["version_compatible"]))
    if int(options["weight_budget_mib"]) >= 0:
        versions.set_weight_budget(api, engine, int(options["weight_budget_mib"]) << 20)
    inputs, outputs = read_tensors(api, engine, manifest.inputs, manifest.outputs)
    runtime_config = versions.new_runtime_config(api, engine)
    opened = Opened(
        api, engine, inputs, outputs, log, cuda=cuda, cuda_graph=bool(options["cuda_graph"]),
        detailed=bool(options["profiling"]), runtime_config=runtime_config,
    )  # fmt: skip
    compiled = _compiled_here(api, runtime_config, manifest, here, opened)
    return TensorRTRunner(
        opened, manifest.inputs, f"{here.name} (GPU {index}), {api.library.label} {api.version}",
        contexts=int(options["contexts"]), copy_threads=int(options["copy_threads"]), device=index,
        before_close=compiled,
    )  # fmt: skip


def _compiled_here(
    api: Api, runtime_config: Any, manifest: ManifestRecord, here: DeviceInfo, opened: Opened
) -> Callable[[], None] | None:
    """Let TensorRT-RTX use what it compiled for this plan before; return what keeps the rest, for the end."""
    device = Device.of(describe_machine(), here.index)
    if runtime_config is None or device is None:
        return None
    cached = runtime_cache.attach(
        api, runtime_config, runtime_cache.cache_key(api, manifest.files[_PLAN].sha256, device)
    )

    def keep() -> None:
        cached.keep()
        for note in cached.notes:
            opened.say_once(note)

    return keep


def check_target(api: Api, target: TargetRecord, here: DeviceInfo, options: Mapping[str, Option]) -> None:
    """Compare what an engine was built for with what is here, before a byte of its plan is read.

    Raises:
        BackendUnavailableError: another library, another version of it, or a GPU that the engine is not for.
    """
    again = "build the engine again on this machine"
    if target.library != api.library.module:
        raise BackendUnavailableError(
            f"the plan was built by {target.library}, and {api.library.module} is to open it", mend=again
        )
    if target.version != api.version and not options["version_compatible"]:
        raise BackendUnavailableError(
            f"the plan was built by {api.library.label} {target.version}, and {api.version} is here: "
            "a plan is for one version",
            mend=f"{again}, install {api.library.distributions[0]}=={target.version}, or build with "
            "--option version_compatible=true",
        )
    portable = options["hardware_compatibility"] != "none"
    if target.compute_capabilities and here.compute_capability not in target.compute_capabilities and not portable:
        raise BackendUnavailableError(
            f"the plan was built for {target.gpu or 'GPUs'} of compute capability "
            f"{', '.join(target.compute_capabilities)}, and {here.name} has {here.compute_capability}",
            mend=f"{again}, or build with --option hardware_compatibility=ampere_plus",
        )


def deserialize(api: Api, path: Path, log: BuildLog, *, host_code: bool = False) -> Any:
    """Return the engine of a plan.

    Args:
        api: the library to read it with.
        path: the plan.
        log: keeps what TensorRT says.
        host_code: let a version-compatible plan run the code it brings; only for plans of one's own.

    Raises:
        BuildError: TensorRT refused it; the message has its own words and our diagnosis.
    """
    trt = api.module
    with log.taking():
        trt.init_libnvinfer_plugins(log.logger, "")
        runtime = trt.Runtime(log.logger)
        if host_code:
            api.set(runtime, "Runtime.engine_host_code_allowed", True)  # noqa: FBT003 - a value
        engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        errors = list(dict.fromkeys(line.strip() for line in log.errors()))
        said = "; ".join(errors) or "it said nothing"
        # The first error is the cause, others follow from it.
        meant = next((found for line in errors if (found := meaning_of(line, api.library))), None)
        raise BuildError(
            f"{api.library.label} {api.version} refused the plan {path} ({path.stat().st_size} bytes): {said}",
            mend=meant or "build the engine again on this machine",
        )
    return engine
