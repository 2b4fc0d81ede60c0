"""The options of the TensorRT backends, for building and for sessions; both libraries take the same ones."""

from __future__ import annotations

from collections.abc import Mapping

from enginery.backends.asked import OptionRule, check_options, read_allowed
from enginery.errors import UsageError
from enginery.spec import Option

__all__ = ["RULES", "SESSION_OPTIONS", "listed", "read_options", "read_session_options"]

_BUILD: dict[str, OptionRule] = {
    # Memory of the builder's kernels in MiB; 0 leaves it to the library, which takes all that is free.
    "workspace_mib": OptionRule(0),
    # 0 to 5: how long to look for faster kernels; -1 is the library's own (3).
    "optimization_level": OptionRule(-1, low=-1, high=5),
    # Threads of the builder; 0 is the library's own choice, and up to 16 for plain convolutional networks on 8.
    "builder_threads": OptionRule(0, low=0),
    # Timings of kernels kept between builds: "" in the user's cache folder, "off", or a path.
    "timing_cache": OptionRule(""),
    "hardware_compatibility": OptionRule("none", choices=("none", "ampere_plus", "same_compute_capability")),
    "version_compatible": OptionRule(default=False),
    "exclude_lean_runtime": OptionRule(default=False),
    # An engine without its weights: they are brought by `refit` before it runs.
    "strip_weights": OptionRule(default=False),
    # Whether weights may be changed later: all of them, or only to the same values ("identical", for a stripped one).
    "refit": OptionRule("no", choices=("no", "yes", "identical")),
    "weight_streaming": OptionRule(default=False),
    # Paths of plugin libraries, joined by ",".
    "plugins": OptionRule(""),
    # Sources of kernels to add and take away, such as "-CUBLAS,+JIT_CONVOLUTIONS".
    "tactic_sources": OptionRule(""),
    # Number of the deep-learning accelerator of a Jetson; -1 for none.
    "dla_core": OptionRule(-1, low=-1),
    "gpu_fallback": OptionRule(default=False),
    "sparse_weights": OptionRule(default=False),
    # TensorRT-RTX: the GPUs an engine shall run on, such as "8.6,8.9,12.0"; "" for the library's own choice.
    "compute_capabilities": OptionRule(""),
    # How often each kernel is timed.
    "average_timing": OptionRule(1, low=1),
    # Streams an engine may use beside the caller's; -1 is the library's own.
    "max_aux_streams": OptionRule(-1, low=-1),
    # Precisions that may stand in for the one asked for, joined by ",".
    "allow_precision": OptionRule(""),
    # "auto": what TensorRT cannot run goes to ONNX Runtime.
    "partition": OptionRule("no", choices=("no", "auto")),
    # "ends": profiles of one size besides the wide one, at the smallest, the best and the largest shapes.
    "narrow": OptionRule("none", choices=("none", "ends")),
    # "tanh": GELU by its approximation, which TensorRT 8 fuses into the product before it; it is not the same function.
    "gelu": OptionRule("exact", choices=("exact", "tanh")),
    # Number of the GPU.
    "device": OptionRule(0),
}

_SESSION: dict[str, OptionRule] = {
    # One graph of the device for copies and kernels together, replayed at each call.
    "cuda_graph": OptionRule(default=True),
    # Calls that may run at one time.
    "contexts": OptionRule(1, low=1),
    # Threads that copy large arrays of the host; 0 chooses by their size.
    "copy_threads": OptionRule(0),
    # Wait for the device with a busy processor: some microseconds sooner.
    "spin": OptionRule(default=False),
    # Memory of the device for streamed weights; -1 is the library's own choice.
    "weight_budget_mib": OptionRule(-1, low=-1),
    "profiling": OptionRule(default=False),
}

RULES: dict[str, OptionRule] = {**_BUILD, **_SESSION}
"""All options. A manifest holds a value for each; a session's own stand over it."""

SESSION_OPTIONS = frozenset((*_SESSION, "device", "dla_core", "plugins"))
"""Those that a session may change."""


def read_options(*given: Mapping[str, Option]) -> dict[str, Option]:
    """Return a value for every option; see `enginery.backends.asked.check_options`.

    Raises:
        UnknownNameError: an option or a word that there is not; the nearest is suggested.
        UsageError: a value of the wrong kind.

    Example:
        >>> read_options({"workspace_mib": "512"})["workspace_mib"]
        512
    """
    options = check_options(RULES, *given)
    read_allowed(options["allow_precision"])
    return options


def read_session_options(built: Mapping[str, Option], asked: Mapping[str, Option]) -> dict[str, Option]:
    """Return a value for every option of an engine that is opened.

    Args:
        built: those of its manifest.
        asked: those of the session, which stand over them.

    Raises:
        UsageError: what only a build can follow was asked to be otherwise.

    Example:
        >>> read_session_options({"refit": "yes"}, {"contexts": 2})["contexts"]
        2
    """
    before, after = read_options(built), read_options(built, asked)
    for name in asked:
        if name not in SESSION_OPTIONS and after[name] != before[name]:
            raise UsageError(
                f"option {name!r} is for building: the engine was built with {before[name]!r}, and {after[name]!r} "
                "was asked for when it was opened",
                mend=f"build it with --option {name}={asked[name]}; "
                f"a session takes {', '.join(sorted(SESSION_OPTIONS))}",
            )
    return after


def listed(text: Option) -> tuple[str, ...]:
    """Split a list of one option at its commas.

    Example:
        >>> listed("8.6, 8.9")
        ('8.6', '8.9')
    """
    return tuple(part.strip() for part in str(text).split(",") if part.strip())
