"""Every question about TensorRT's version: which library is here, what it has, and how one call is spelt in each.

The library (``tensorrt`` 8.5 to 11, or ``tensorrt_rtx``) is an `Api` that is passed around; nothing else imports it.
What differs between versions is asked here, by name: an enumeration's integers differ between 8, 10 and 11, so none is
ever written down. `FEATURES` lists what only some versions have; the tests hold it against the real bindings.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from enginery import optional
from enginery.errors import FeatureError
from enginery.spec import PRECISIONS

__all__ = [
    "FEATURES",
    "LIBRARIES",
    "Api",
    "Feature",
    "Library",
    "ParserError",
    "capability_names",
    "element_type",
    "int8_form",
    "lacking",
    "lacks_kernels_for",
    "layer_metadata",
    "load_api",
    "load_plugin_library",
    "make_weights",
    "opset_ceiling",
    "pin_layer",
    "plugin_names",
    "precisions",
    "read_parser_error",
    "release_of",
    "set_capabilities",
    "set_plan_flag",
    "share_profiles",
    "supports",
]


@dataclass(frozen=True)
class Library:
    """One of the two libraries with TensorRT's API.

    Args:
        module: what is imported.
        label: what messages call it.
        extra: the extra of Enginery that installs it.
        distributions: names under which pip may have installed it, the plainest first.
    """

    module: str
    label: str
    extra: str
    distributions: tuple[str, ...]


LIBRARIES: Mapping[str, Library] = {
    "tensorrt": Library(
        "tensorrt", "TensorRT", "tensorrt", ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11")
    ),
    "tensorrt_rtx": Library("tensorrt_rtx", "TensorRT-RTX", "tensorrt-rtx", ("tensorrt-rtx", "tensorrt-rtx-cu13")),
}
"""The libraries by the name of the backend that uses them."""


@dataclass(frozen=True)
class Feature:
    """Something that only some versions have.

    Args:
        label: what a user calls it.
        tensorrt: versions of TensorRT that have it, such as ``10.0+`` or ``8.5-10.16``; empty for none.
        rtx: versions of TensorRT-RTX that have it.
    """

    label: str
    tensorrt: str
    rtx: str


FEATURES: Mapping[str, Feature] = {
    "IBuilderConfig.builder_optimization_level": Feature("the optimisation level", "8.6+", "1.4+"),
    "IBuilderConfig.max_aux_streams": Feature("the number of auxiliary streams", "8.6+", "1.4+"),
    "IBuilderConfig.hardware_compatibility_level": Feature("an engine for other GPUs", "8.6+", "1.4+"),
    "IBuilderConfig.num_compute_capabilities": Feature("an engine for named compute capabilities", "", "1.4+"),
    "IBuilderConfig.set_compute_capability": Feature("an engine for named compute capabilities", "", "1.4+"),
    "HardwareCompatibilityLevel.AMPERE_PLUS": Feature("an engine for Ampere and later", "8.6+", "1.4+"),
    "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY": Feature(
        "an engine for all GPUs of one compute capability", "10.9+", "1.4+"
    ),
    "ComputeCapability": Feature("an engine for named compute capabilities", "", "1.4+"),
    "IPluginRegistry.load_library": Feature("loading a plugin library by its registry", "8.6+", "1.4+"),
    "IPluginRegistry.all_creators": Feature("the list of all plugins", "10.0+", "1.4+"),
    "IPluginRegistry.plugin_creator_list": Feature("the list of plugins", "8.5-10.16", "1.4"),
    "Builder.get_plugin_registry": Feature("a registry of plugins for each builder", "8.6+", "1.4+"),
    "ParserError.node_name": Feature("the node's name in an error of the parser", "10.0+", "1.4+"),
    "ParserError.node_operator": Feature("the operator in an error of the parser", "10.0+", "1.4+"),
    "OnnxParserRefitter": Feature("refitting from an ONNX file", "10.0+", "1.4+"),
    "IProgressMonitor": Feature("a build's own word on its progress", "10.0+", "1.4+"),
    "IBuilderConfig.progress_monitor": Feature("a build's own word on its progress", "10.0+", "1.4+"),
    "IRuntimeCache": Feature("a cache of kernels compiled at run time", "", "1.4+"),
    "ICudaEngine.device_memory_size": Feature("the size of a context's memory", "8.5-10.16", ""),
    "ICudaEngine.device_memory_size_v2": Feature("the size of a context's memory", "10.1+", "1.4+"),
    "ICudaEngine.create_execution_context_without_device_memory": Feature("memory of the caller's", "8.5-10.16", ""),
    "ICudaEngine.weight_streaming_budget": Feature("weights streamed from the host", "10.0-10.16", ""),
    "ICudaEngine.weight_streaming_budget_v2": Feature("weights streamed from the host", "10.1+", "1.4+"),
    "ExecutionContextAllocationStrategy.USER_MANAGED": Feature("memory of the caller's", "10.0+", "1.4+"),
    "ICudaEngine.create_runtime_config": Feature("how contexts are made", "10.11+", "1.4+"),
    "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy": Feature(
        "kernels compiled for each shape", "", "1.4+"
    ),
    "IRuntimeConfig.set_execution_context_allocation_strategy": Feature("memory of the caller's", "10.11+", "1.4+"),
    "IExecutionContext.set_device_memory": Feature("memory of the caller's", "10.1+", "1.4+"),
    "Runtime.engine_host_code_allowed": Feature("running a version-compatible plan", "8.6+", "1.4+"),
    "DataType.BF16": Feature("bfloat16", "10.0+", "1.4+"),
    "DataType.FP8": Feature("float8", "8.6+", "1.4+"),
    "DataType.INT64": Feature("64-bit integers", "10.0+", "1.4+"),
    "DynamicShapesKernelSpecializationStrategy.EAGER": Feature("kernels compiled for each shape", "", "1.4+"),
    "BuilderFlag.FP16": Feature("precision by a builder flag", "8.5-10.16", "1.4"),
    "BuilderFlag.INT8": Feature("precision by a builder flag", "8.5-10.16", "1.4"),
    "BuilderFlag.OBEY_PRECISION_CONSTRAINTS": Feature("precision by a layer's name", "8.5-10.16", "1.4"),
    "BuilderFlag.PREFER_PRECISION_CONSTRAINTS": Feature("precision by a layer's name", "8.5-10.16", "1.4"),
    "ILayer.metadata": Feature("a layer's metadata", "8.6+", "1.4+"),
    "ILayer.precision": Feature("precision by a layer's name", "8.5-10.16", "1.4"),
    "ILayer.set_output_type": Feature("precision by a layer's name", "8.5-10.16", "1.4"),
    "BuilderFlag.REFIT_IDENTICAL": Feature("refitting with the same weights", "10.0+", "1.4+"),
    "BuilderFlag.STRIP_PLAN": Feature("an engine without its weights", "10.0+", "1.4+"),
    "ICudaEngine.create_serialization_config": Feature("a plan with weights brought later", "10.0+", "1.4+"),
    "ICudaEngine.serialize_with_config": Feature("a plan with weights brought later", "10.0+", "1.4+"),
    "SerializationFlag.EXCLUDE_WEIGHTS": Feature("a plan with weights brought later", "10.0+", "1.4+"),
    "SerializationFlag.INCLUDE_REFIT": Feature("a plan that stays refittable", "10.14+", "1.4+"),
    "BuilderFlag.VERSION_COMPATIBLE": Feature("an engine for later versions", "8.6+", "1.4+"),
    "BuilderFlag.EXCLUDE_LEAN_RUNTIME": Feature("an engine without the lean runtime", "8.6+", "1.4+"),
    "BuilderFlag.WEIGHT_STREAMING": Feature("weights streamed from the host", "10.0+", "1.4+"),
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": Feature("the flag of explicit batches", "8.5-10.16", "1.4"),
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": Feature("strongly typed networks", "10.0+", "1.4+"),
    "PreviewFeature.PROFILE_SHARING_0806": Feature("contexts that share a profile", "8.6-10.16", "1.4"),
}
"""By dotted name. A version is named as major.minor; ``10.0+`` means that version and all later ones."""


@dataclass(frozen=True)
class Api:
    """A TensorRT library as an object that is passed around; see the module's text.

    Args:
        library: which of the two it is.
        module: the imported library; ``trt`` wherever it is used.
        version: its full version, such as ``8.6.0``.
    """

    library: Library
    module: ModuleType = field(repr=False)
    version: str

    @property
    def release(self) -> tuple[int, int]:
        """Major and minor version, such as ``(8, 6)``."""
        return release_of(self.version)

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT-RTX."""
        return self.library.module == "tensorrt_rtx"

    @property
    def is_typed(self) -> bool:
        """Whether precision stands in the graph (10, 11, RTX), and not in flags and layers (8)."""
        return self.find("NetworkDefinitionCreationFlag.STRONGLY_TYPED") is not None

    def find(self, dotted: str) -> Any:
        """Return what a dotted name below the module stands for here, such as ``BuilderFlag.TF32``; None where absent.

        Example:
            >>> import types
            >>> trt = types.SimpleNamespace(BuilderFlag=types.SimpleNamespace(TF32=6))
            >>> api = Api(LIBRARIES["tensorrt"], trt, "10.3.0")
            >>> api.find("BuilderFlag.TF32"), api.find("BuilderFlag.FP16")
            (6, None)
        """
        found: Any = self.module
        for name in dotted.split("."):
            found = getattr(found, name, None)
            if found is None:
                return None
        return found

    def need(self, dotted: str) -> Any:
        """Return what a dotted name stands for, or say which version has it.

        Raises:
            FeatureError: this version has no such thing; names the feature, the versions with it and the one found.
        """
        found = self.find(dotted)
        if found is None:
            raise self.lacks(dotted)
        return found

    def lacks(self, dotted: str) -> FeatureError:
        """Make the error for a feature of `FEATURES` that this version does not have."""
        feature = FEATURES[dotted]
        having = [
            f"{library.label} {_said(versions)}"
            for library, versions in zip(LIBRARIES.values(), (feature.tensorrt, feature.rtx), strict=True)
            if versions
        ]
        return FeatureError(
            f"{feature.label} ({dotted}) needs {' or '.join(having)}; {self.library.label} {self.version} is here",
            mend=f"leave it out, or install a version that has it: pip install {self.library.distributions[0]}",
        )

    def set(self, target: Any, dotted: str, value: Any) -> None:
        """Set what only some versions have, such as ``IBuilderConfig.max_aux_streams`` of a configuration.

        Raises:
            FeatureError: this version has no such thing.
        """
        self.need(dotted)
        setattr(target, dotted.rpartition(".")[2], value)

    def network_flags(self) -> int:
        """Return the mask to create a network with: explicit batches on 8, strongly typed from 10 on."""
        names = ("STRONGLY_TYPED", "EXPLICIT_BATCH")
        found = (self.find(f"NetworkDefinitionCreationFlag.{name}") for name in names)
        flag = next((flag for flag in found if flag is not None), None)
        return 0 if flag is None else 1 << int(flag)


def load_api(name: str) -> Api:
    """Import one of `LIBRARIES`.

    Raises:
        MissingExtraError: it is not installed.
    """
    library = LIBRARIES[name]
    module = optional.require(library.module, extra=library.extra, why="to build and run its engines")
    return Api(library, module, str(module.__version__))


_OPSETS: Mapping[str, tuple[tuple[tuple[int, int], int], ...]] = {
    "tensorrt": (((11, 0), 25), ((10, 0), 20), ((0, 0), 17)),
    "tensorrt_rtx": (((1, 5), 25), ((0, 0), 20)),
}
"""The newest ONNX operator set that a version's parser reads, from the newest version down."""

_TYPED_FROM: Mapping[str, tuple[int, int]] = {"tensorrt": (10, 0), "tensorrt_rtx": (1, 4)}
_NEEDS_CAPABILITY: Mapping[str, tuple[int, int]] = {"tf32": (8, 0), "bf16": (8, 0), "fp8": (8, 9)}


def release_of(version: str) -> tuple[int, int]:
    """Return major and minor of a version; ``(0, 0)`` where it has none.

    Example:
        >>> release_of("10.16.1.11")
        (10, 16)
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def capability_names(api: Api) -> dict[str, Any]:
    """Return the compute capabilities that an engine can be built for by name, such as ``8.9``.

    Raises:
        FeatureError: the library has no such list.
    """
    members: Mapping[str, Any] = api.need("ComputeCapability").__members__
    numbers = {name[2:]: member for name, member in members.items() if re.fullmatch(r"SM\d+", name)}
    return {f"{number[:-1]}.{number[-1]}": member for number, member in numbers.items()}


def set_capabilities(api: Api, config: Any, members: Sequence[Any]) -> bool:
    """Name the GPUs that TensorRT-RTX builds for; False where it refuses one."""
    api.set(config, "IBuilderConfig.num_compute_capabilities", len(members))
    return all(config.set_compute_capability(member, at) for at, member in enumerate(members))


def set_plan_flag(api: Api, config: Any, dotted: str) -> None:
    """Set a builder's flag that only some versions have.

    Raises:
        FeatureError: this version has it not.
    """
    config.set_flag(api.need(dotted))


def pin_layer(api: Api, layer: Any, dtype: Any, outputs: Sequence[int]) -> None:
    """Ask for a layer's precision and for the type of some of its outputs: a constraint, where the builder obeys them.

    Raises:
        FeatureError: this version has no precision by layer: it stands in the graph.
    """
    api.need("ILayer.set_output_type")
    api.set(layer, "ILayer.precision", dtype)
    for index in outputs:
        layer.set_output_type(index, dtype)


def layer_metadata(api: Api, layer: Any) -> str:
    """Return what the parser noted of a layer, ``[ONNX Layer: name]``; nothing before 8.6."""
    return str(layer.metadata) if api.find("ILayer.metadata") is not None else ""


def share_profiles(api: Api, config: Any) -> None:
    """Let contexts that live at one time use one profile: 8.6 has to be told, later versions do so by themselves."""
    feature = api.find("PreviewFeature.PROFILE_SHARING_0806")
    if feature is not None and not api.is_typed:
        config.set_preview_feature(feature, True)  # noqa: FBT003 - TensorRT's own signature


def load_plugin_library(api: Api, path: str, logger: Any) -> None:
    """Load a plugin library: 8.6 and later keep it in a registry, before that loading it registers its plugins.

    Raises:
        OSError: it cannot be loaded.
        RuntimeError: nothing was registered.
    """
    api.module.init_libnvinfer_plugins(logger, "")
    if api.find("IPluginRegistry.load_library") is None:
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        return
    ctypes.CDLL(path)  # its error says what is missing; the registry's answer is None
    if api.module.get_plugin_registry().load_library(path) is None:
        raise RuntimeError("the library registers no plugin for this version")


def plugin_names(api: Api) -> tuple[str, ...]:
    """Return the names of the plugins that there are."""
    registry = api.module.get_plugin_registry()
    every = api.find("IPluginRegistry.all_creators") is not None
    creators = registry.all_creators if every else registry.plugin_creator_list
    return tuple(sorted({str(creator.name) for creator in creators}))


@dataclass(frozen=True)
class ParserError:
    """One error of the parser: the node's index in the file (-1 for none), its name (from 10 on), and the text."""

    index: int
    name: str
    text: str
    file: str
    function: str


def read_parser_error(error: Any) -> ParserError:
    """Read an error of the parser, whose members differ: before 10, a node is told by its index alone."""
    name = error.node_name() if hasattr(error, "node_name") else ""
    return ParserError(error.node(), name, error.desc(), error.file(), error.func())


def lacks_kernels_for(api: Api, operator: str) -> bool:
    """Say whether no build succeeds with an operator although the parser says that it is supported."""
    return api.is_rtx and operator in _NOT_ON_RTX


_NOT_ON_RTX = frozenset({"NonZero", "NonMaxSuppression"})
"""Operators with data-dependent outputs, which TensorRT-RTX has no kernels for, and whose importers are there."""


def runs_type(api: Api, dtype: str) -> bool:
    """Say whether a version computes with tensors of one of ONNX's element types, such as ``FLOAT16``.

    DOUBLE counts, for every parser turns it into FLOAT, and INT64, which the parsers before 10 turn into INT32.

    Example:
        >>> import types
        >>> api = Api(LIBRARIES["tensorrt"], types.SimpleNamespace(DataType=types.SimpleNamespace(HALF=1)), "8.6.0")
        >>> runs_type(api, "FLOAT16"), runs_type(api, "STRING"), runs_type(api, "BFLOAT16")
        (True, False, False)
    """
    if dtype in ("DOUBLE", "INT64", "UNDEFINED"):
        return True
    name = _TYPE_NAMES.get(dtype)
    return name is not None and api.find(f"DataType.{name}") is not None


_TYPE_NAMES = {
    "FLOAT": "FLOAT", "FLOAT16": "HALF", "BFLOAT16": "BF16", "INT8": "INT8", "INT32": "INT32", "BOOL": "BOOL",
    "UINT8": "UINT8", "FLOAT8E4M3FN": "FP8", "INT4": "INT4", "FLOAT4E2M1": "FP4", "FLOAT8E8M0": "E8M0",
}  # fmt: skip
"""TensorRT's names of ONNX's element types. There are none for texts, 16-bit and unsigned integers, E5M2."""


def element_type(api: Api, dtype: Any) -> str:
    """Return our name of one of TensorRT's element types, such as ``float16`` for ``DataType.HALF``."""
    name = next(name for name, member in api.module.DataType.__members__.items() if member == dtype)
    plain = {"FLOAT": "float32", "HALF": "float16"}
    return plain.get(name) or next((onnx for onnx, own in _TYPE_NAMES.items() if own == name), name).lower()


def make_weights(api: Api, array: Any, dtype: str) -> tuple[Any, Any]:
    """Make TensorRT's weights of an array: by address, for it does not know every array of numpy's.

    Args:
        api: the library.
        array: any numpy array.
        dtype: ONNX's name of its element type; DOUBLE becomes FLOAT, and INT64 INT32 before 10, as the parser does.

    Returns:
        The weights, and the array that must live as long.
    """
    if dtype == "DOUBLE":
        array, dtype = array.astype("float32"), "FLOAT"
    elif dtype == "INT64" and api.find("DataType.INT64") is None:
        array, dtype = array.astype("int32"), "INT32"
    own = api.need(f"DataType.{'INT64' if dtype == 'INT64' else _TYPE_NAMES[dtype]}")
    kept = array if array.flags.c_contiguous else array.copy()
    return api.module.Weights(own, kept.ctypes.data, kept.size), kept


def serialize_whole(api: Api, engine: Any) -> Any:
    """Serialise an engine with its weights: one that was built without them may leave them out by itself."""
    if api.find("ICudaEngine.create_serialization_config") is None:
        return engine.serialize()
    how = engine.create_serialization_config()
    how.clear_flag(api.need("SerializationFlag.EXCLUDE_WEIGHTS"))
    if (stays := api.find("SerializationFlag.INCLUDE_REFIT")) is not None:
        how.set_flag(stays)
    return engine.serialize_with_config(how)


def opset_ceiling(library: Library, version: str) -> int:
    """Return the newest ONNX operator set that a version reads rightly.

    Example:
        >>> opset_ceiling(LIBRARIES["tensorrt"], "8.6.1"), opset_ceiling(LIBRARIES["tensorrt_rtx"], "1.7.1")
        (17, 25)
    """
    return next(opset for since, opset in _OPSETS[library.module] if release_of(version) >= since)


def precisions(library: Library, version: str, capability: str = "") -> frozenset[str]:
    """Return what a version computes in, on a GPU of that compute capability; empty where it is not known.

    Example:
        >>> sorted(precisions(LIBRARIES["tensorrt"], "8.6.1", "7.5"))
        ['fp16', 'fp32', 'int8']
    """
    named = {"fp32", "tf32", "fp16", "int8"}
    if release_of(version) >= _TYPED_FROM[library.module]:
        named |= {"bf16", "fp8"}
    return frozenset(name for name in named if not capability or supports(capability, name))


def int8_form(library: Library, version: str) -> str:
    """Return how a version best reads INT8: a name of `enginery.graph.precision.forms.FORMS`.

    Example:
        >>> int8_form(LIBRARIES["tensorrt"], "8.6.1"), int8_form(LIBRARIES["tensorrt"], "10.9.0")
        ('symmetric8', 'symmetric')
    """
    return "symmetric" if release_of(version) >= _TYPED_FROM[library.module] else "symmetric8"


def lacking(library: Library, version: str, capability: str = "") -> dict[str, str]:
    """Say of each precision that a version does not compute in why that is.

    Example:
        >>> lacking(LIBRARIES["tensorrt"], "8.6.1", "7.5")["bf16"]
        'TensorRT 8.6.1 has no such type: it came with version 10'
    """
    untyped = f"{library.label} {version} has no such type: it came with version 10"
    without = f"a GPU of compute capability {capability} has no instructions for it"
    late = {"bf16", "fp8"} if release_of(version) < _TYPED_FROM[library.module] else set()
    offered = precisions(library, version, capability)
    return {name: untyped if name in late else without for name in PRECISIONS if name not in offered}


def supports(capability: str, precision: str) -> bool:
    """Say whether a GPU of that compute capability has instructions for a precision.

    Example:
        >>> supports("7.5", "bf16"), supports("12.0", "bf16"), supports("7.5", "fp16")
        (False, True, True)
    """
    return release_of(capability) >= _NEEDS_CAPABILITY.get(precision, (0, 0))


def _said(versions: str) -> str:
    return f"{versions[:-1]} or later" if versions.endswith("+") else versions.replace("-", " to ")


def scratch_bytes(api: Api, engine: Any) -> int:
    """Return the memory of the device that one context of an engine needs for activations."""
    later = api.find("ICudaEngine.device_memory_size_v2") is not None
    return int(engine.device_memory_size_v2 if later else engine.device_memory_size)


def new_runtime_config(api: Api, engine: Any) -> Any:
    """Return the ``IRuntimeConfig`` that TensorRT-RTX makes contexts with; None for TensorRT, which needs none.

    Kernels for new shapes are compiled when the shape is set, not in the background: what was captured meanwhile would
    keep the slower ones.
    """
    if not api.is_rtx:
        return None
    runtime_config = engine.create_runtime_config()
    runtime_config.set_execution_context_allocation_strategy(
        api.need("ExecutionContextAllocationStrategy.USER_MANAGED")
    )
    eager = api.need("DynamicShapesKernelSpecializationStrategy.EAGER")
    runtime_config.dynamic_shapes_kernel_specialization_strategy = eager
    return runtime_config


def new_context(api: Api, engine: Any, address: int, size: int, runtime_config: Any = None) -> Any:
    """Make an execution context that works in memory of ours; None where the library refuses."""
    if runtime_config is not None:
        context = engine.create_execution_context(runtime_config)
    elif api.find("ICudaEngine.create_execution_context_without_device_memory") is not None:
        context = engine.create_execution_context_without_device_memory()
    else:
        context = engine.create_execution_context(api.need("ExecutionContextAllocationStrategy.USER_MANAGED"))
    if context is None:
        return None
    if api.find("IExecutionContext.set_device_memory") is not None:
        context.set_device_memory(address, size)
    else:
        context.device_memory = address
    return context


def shares_profiles(api: Api) -> bool:
    """Say whether several contexts may have one profile: from 8.6 on, where the build asked for it."""
    return api.is_rtx or api.release >= (8, 6)


def set_weight_budget(api: Api, engine: Any, size: int) -> None:
    """Let an engine keep that many bytes of streamed weights on the device.

    Raises:
        FeatureError: this version streams no weights.
    """
    api.need("BuilderFlag.WEIGHT_STREAMING")
    if api.find("ICudaEngine.weight_streaming_budget_v2") is not None:
        engine.weight_streaming_budget_v2 = size
    else:
        engine.weight_streaming_budget = size
