"""The builder's configuration: one function for each group of options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from enginery.backends.tensorrt.options import listed
from enginery.backends.tensorrt.versions import Api, Library, set_plan_flag, share_profiles
from enginery.errors import FeatureError, UnknownNameError, UsageError
from enginery.spec import Option

__all__ = ["configure", "refuse_options"]

_MIB = 2**20

_NOT_ON_RTX = {
    "hardware_compatibility": ("none", "name the GPUs instead: --option compute_capabilities=8.6,8.9,12.0"),
    "version_compatible": (False, "build again with each version: it needs a lean runtime, which TensorRT-RTX lacks"),
    "exclude_lean_runtime": (False, "leave it out"),
    "dla_core": (-1, "build with TensorRT on a Jetson: --backend tensorrt"),
    "gpu_fallback": (False, "leave it out: it has no other device to fall back from"),
}
"""Options that TensorRT-RTX ignores or fails with, with the value that asks for nothing, and the mend."""


def refuse_options(library: Library, options: Mapping[str, Option], *, gpu_here: bool, targets: int) -> None:
    """Refuse options that this library cannot follow, before anything is built.

    Args:
        library: TensorRT or TensorRT-RTX; it need not be loaded.
        options: all of them.
        gpu_here: whether a GPU is here.
        targets: how many compute capabilities were asked for.

    Raises:
        FeatureError: naming the option and what to do instead.
    """
    if library.module != "tensorrt_rtx":
        return
    for name, (nothing, mend) in _NOT_ON_RTX.items():
        if options[name] != nothing:
            raise FeatureError(f"{library.label} has no {name}={_word(options[name])}", mend=mend)
    changing = [name for name, nothing in (("refit", "no"), ("strip_weights", False)) if options[name] != nothing]
    if changing and (not gpu_here or targets > 1):
        asked = " and ".join(f"{name}={_word(options[name])}" for name in changing)
        raise FeatureError(
            f"{library.label} builds {asked} only on a GPU and for one compute capability",
            mend="leave it out, or build on the GPU that shall run the engine",
        )


def configure(api: Api, builder: Any, config: Any, precision: str, options: Mapping[str, Option]) -> None:
    """Set what options and precision ask for; precision by layer is set elsewhere.

    Args:
        api: the library.
        builder: asked about what there is here.
        config: changed in place.
        precision: TF32 is allowed for ``tf32`` alone: with every other one, what is float32 is computed in float32.
        options: as `enginery.backends.tensorrt.options.read_options` gives them.

    Raises:
        FeatureError: this version lacks what was asked for.
        UnknownNameError: a tactic source that it does not know.
    """
    trt = api.module
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    _set_flag(config, trt.BuilderFlag.TF32, on=precision == "tf32")
    _set_flag(config, trt.BuilderFlag.SPARSE_WEIGHTS, on=bool(options["sparse_weights"]))
    _configure_effort(api, config, options)
    _configure_plan(api, config, options)
    _configure_device(api, builder, config, options)
    share_profiles(api, config)


def _set_flag(config: Any, flag: Any, *, on: bool) -> None:
    (config.set_flag if on else config.clear_flag)(flag)


def _configure_effort(api: Api, config: Any, options: Mapping[str, Option]) -> None:
    """Set memory, effort and sources of kernels."""
    trt = api.module
    if options["workspace_mib"]:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(options["workspace_mib"]) * _MIB)
    level, streams = int(options["optimization_level"]), int(options["max_aux_streams"])
    if level >= 0:
        api.set(config, "IBuilderConfig.builder_optimization_level", level)
    if streams >= 0:
        api.set(config, "IBuilderConfig.max_aux_streams", streams)
    config.avg_timing_iterations = int(options["average_timing"])
    if sources := listed(options["tactic_sources"]):
        config.set_tactic_sources(_source_mask(api, config.get_tactic_sources(), sources))


def _source_mask(api: Api, mask: int, changes: tuple[str, ...]) -> int:
    """Return a mask of tactic sources after ``+NAME`` and ``-NAME``."""
    members: Mapping[str, Any] = api.module.TacticSource.__members__
    for change in changes:
        sign, name = change[0], change[1:]
        if sign not in "+-":
            raise UsageError(f"tactic source {change!r} has no sign", mend="write +NAME to add, -NAME to take away")
        if name not in members:
            raise UnknownNameError.from_choices("tactic source", name, members)
        bit = 1 << int(members[name])
        mask = mask | bit if sign == "+" else mask & ~bit
    return mask


def _configure_plan(api: Api, config: Any, options: Mapping[str, Option]) -> None:
    """Set what kind of plan is written: for which machines, with which weights."""
    wanted = {
        "BuilderFlag.VERSION_COMPATIBLE": options["version_compatible"],
        "BuilderFlag.EXCLUDE_LEAN_RUNTIME": options["exclude_lean_runtime"],
        "BuilderFlag.STRIP_PLAN": options["strip_weights"],
        "BuilderFlag.WEIGHT_STREAMING": options["weight_streaming"],
        "BuilderFlag.REFIT_IDENTICAL": options["refit"] == "identical",
        "BuilderFlag.REFIT": options["refit"] == "yes",
    }
    for dotted, asked in wanted.items():
        if asked:
            set_plan_flag(api, config, dotted)
    compatible = str(options["hardware_compatibility"]).upper()
    if compatible != "NONE":
        level = api.need(f"HardwareCompatibilityLevel.{compatible}")
        api.set(config, "IBuilderConfig.hardware_compatibility_level", level)


def _configure_device(api: Api, builder: Any, config: Any, options: Mapping[str, Option]) -> None:
    """Choose a deep-learning accelerator where one was asked for."""
    trt = api.module
    _set_flag(config, trt.BuilderFlag.GPU_FALLBACK, on=bool(options["gpu_fallback"]))
    core = int(options["dla_core"])
    if core < 0:
        return
    if core >= builder.num_DLA_cores:
        raise FeatureError(
            f"dla_core={core}: this machine has {builder.num_DLA_cores} deep-learning accelerators",
            mend="leave dla_core out: only Jetson and Drive boards have them",
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core


def _word(value: Option) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
