"""What TensorRT's error texts probably mean, and what to do about each.

The texts are those of TensorRT 8.5 to 11 and of TensorRT-RTX. The first pattern that is found stands, so a cause
stands before what follows from it.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from enginery.backends.tensorrt.versions import Library

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["UNSEEN_GPU", "diagnose", "is_short_of_memory", "meaning_of"]

UNSEEN_GPU = "let it see a GPU: CUDA_VISIBLE_DEVICES may hide all of them, and enginery doctor looks at the driver"
"""The mend where a library finds no device."""

_SHORT_OF_MEMORY = (
    r"out of memory|OutOfMemory|cudaErrorMemoryAllocation|[Ii]nsufficient (?:workspace|memory)|bad_alloc|"
    r"requested amount of GPU memory|exceeds? (?:the )?workspace"
)

_ON_RTX: tuple[tuple[str, str], ...] = (
    (
        (
            r"(?s)(?:has no runners|was not found).*\((?:NonZero|NonMaxSuppression)\b|NonZero plugin|"
            r"\((?:NonZero|NonMaxSuppression)\b.*(?:has no runners|was not found)"
        ),
        (
            "TensorRT-RTX runs no operator whose outputs' sizes depend on data: cut it off the graph, build with "
            "TensorRT, or --option partition=auto"
        ),
    ),
    (
        r"plugin (?:creator )?version \S+ was not found|getPluginCreator|[Pp]lugin not found|no importer",
        (
            "TensorRT-RTX has no importer for that operator, and no plugins: --option partition=auto runs what it "
            "cannot on ONNX Runtime; or rewrite those nodes"
        ),
    ),
)
"""What is to be done otherwise with TensorRT-RTX."""

_OTHERWISE = "build with another backend"
_PART = "--option partition=auto runs what {label} cannot on ONNX Runtime"

_MEANINGS: tuple[tuple[str, str], ...] = (
    (
        (
            r"(?:cuda|CUDA)[^\n]{0,60}\b35\b|cudaErrorInsufficientDriver|"
            r"insufficient for CUDA runtime"
        ),
        "no NVIDIA driver answers, or one too old for this library's CUDA: see `nvidia-smi` and `enginery doctor`",
    ),
    (
        r"cudaErrorNoDevice|no CUDA-capable device|CUDA initialization failure with error:? 100",
        UNSEEN_GPU,
    ),
    (
        r"lib(?:nvinfer|nvonnxparser|cudart|cudnn|cublas)\w*\.so[.\d]*: cannot open",
        "a library that {label} needs is not where it looks: see `enginery doctor`, or install the whole set of wheels",
    ),
    (
        (
            r"Version tag does not match|version tag.*match|serialized with (?:a )?(?:newer|older|different)|"
            r"Serialization assertion \S*[Vv]ersion|engine plan file is not compatible with this version"
        ),
        (
            "the plan was built by another version of {label}: build it again here, or open it with the version that "
            "the manifest names"
        ),
    ),
    (
        (
            r"incompatible device|expecting compute (?P<built>[\d.]+) got compute (?P<here>[\d.]+)|"
            r"built with compute capability|generated on an incompatible"
        ),
        (
            "the plan was built for another GPU: build it again on this one, or build with "
            "--option hardware_compatibility=ampere_plus"
        ),
    ),
    (
        (
            r"[Mm]agic tag does not match|header\.size == blobSize|k(?:PLAN|EXPECTED)_MAGIC_TAG|"
            r"[Tt]runcated|stdArchiveReader|Serialization Error|"
            r"deserializeCudaEngine.*size|Unexpected end of (?:plan|stream)|corrupt(?:ed)? (?:plan|engine)"
        ),
        "the plan is cut short or was changed: copy or build the engine again",
    ),
    (
        r"(?:no optimization profile|optimization profile has not been|profile has been defined)",
        "an input has open axes and no shapes were given: give --shapes NAME=MIN..OPT..MAXx... for each",
    ),
    (
        r"missing values for shape input tensor (?P<name>\S+?)\.? ",
        "{name} says the sizes of other tensors: give the range of its values, --values {name}=1..4..8x16",
    ),
    (
        r"violate shape constraints|self-consistent|invalid shape profile|inconsistent.{0,40}profile",
        (
            "sizes of a profile contradict each other: inputs that share an axis need the same range for it, and the "
            "values of a shape input must fit the shapes at min, at opt and at max"
        ),
    ),
    (
        (
            r"(?P<op>NonZero|NonMaxSuppression|NMS|Unique|Compress|\w+) plugin (?:creator )?version \S+ was not found|"
            r"getPluginCreator|[Pp]lugin not found|no plugin (?:creator|named)|Cannot find plugin"
        ),
        "no importer and no plugin has that operator: name the plugin's library, --option plugins=/path/libops.so; "
        "or " + _PART,
    ),
    (
        r"no importer|No importer registered|UNSUPPORTED_NODE|not supported on this|unsupported operator",
        _PART + "; or rewrite those nodes",
    ),
    (
        r"has no runners|has no implementation|Could not find any implementation for node",
        "no kernel runs that layer as asked: give more workspace (--option workspace_mib=0 takes all that is free), "
        "another precision, or " + _PART,
    ),
    (
        _SHORT_OF_MEMORY,
        (
            "GPU memory ran out: close other programs on the GPU, give smaller shapes, or set --option workspace_mib= "
            "to what is free"
        ),
    ),
    (
        r"HW-specific datatypes: (?P<types>[\w, ]+)",
        "a compute capability that was asked for has no {types} instructions: leave it out, or take another precision",
    ),
    (
        r"sm_vers_\.size\(\) ?== ?1|CHECK\(status == CUDA_SUCCESS\)",
        "{label} does this only on a GPU, for that GPU alone: leave out refit and strip_weights, or build there",
    ),
    (
        r"UINT8.{0,40}(?:zero_point|quanti)|zero_point.{0,40}UINT8",
        "quantise to symmetric INT8, zero point 0",
    ),
    (
        r"[Zz]ero.?[Pp]oint.{0,60}(?:zero|0|symmetric)|only supports symmetric quantization",
        "TensorRT takes symmetric quantisation only: quantise to INT8 with zero point 0",
    ),
    (
        r"INT64|Int64|out of range.*int32",
        "TensorRT 8 computes whole numbers in INT32: keep the values within it, or take TensorRT 10 or later",
    ),
    (
        r"fp16 precision has been set for a layer|fp16 is not configured",
        "the graph itself has FP16 tensors, which TensorRT 8 takes only where it was asked for: --precision fp16",
    ),
    (
        r"data ?type|Failed to convert ONNX da\w+ type",
        "{label} has no such element type: cut texts and 16-bit integers off the graph, or " + _OTHERWISE,
    ),
    (
        r"No nesting relationship|[Ll]oop|IIfConditional|ITripLimit",
        "{label} does not take this form of Loop or If: fold it away (fixed sizes help), or " + _PART,
    ),
    (
        r"[Mm]yelin",
        "the compiler inside {label} failed on this graph: try another version, --option optimization_level=2, or "
        + _PART,
    ),
)


def diagnose(error: Exception, graph: ir.Model | None, library: Library) -> str | None:
    """Say what TensorRT's text probably means and what to do; None where nothing is known of it.

    Example:
        >>> from enginery.backends.tensorrt.versions import LIBRARIES
        >>> diagnose(RuntimeError("[network] no optimization profile has been defined"), None, LIBRARIES["tensorrt"])
        'an input has open axes and no shapes were given: give --shapes NAME=MIN..OPT..MAXx... for each'
    """
    del graph
    if isinstance(error, AttributeError) and type(error.obj).__name__.startswith("INetworkDefinit"):
        near = difflib.get_close_matches(error.name or "", [name for name in dir(error.obj) if name[0] != "_"], n=1)
        return f"did you mean network.{near[0]}?" if near else "see TensorRT's own list of layers"
    return meaning_of(str(error), library)


def meaning_of(text: str, library: Library) -> str | None:
    """Say what a text of the log or of an error means; see `diagnose`."""
    for pattern, meaning in (*(_ON_RTX if library.module == "tensorrt_rtx" else ()), *_MEANINGS):
        if match := re.search(pattern, text):
            groups = {name: found or "it" for name, found in match.groupdict().items()}
            return meaning.format_map({"label": library.label, **groups})
    return None


def is_short_of_memory(text: str) -> bool:
    """Say whether a text tells of memory that ran out, which another program may have held.

    Example:
        >>> is_short_of_memory("2: [virtualMemoryBuffer.cpp::resizePhysical::79] OutOfMemory (no further information)")
        True
    """
    return re.search(_SHORT_OF_MEMORY, text) is not None
