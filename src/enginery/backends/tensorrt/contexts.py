"""Execution contexts: one for each shape that is captured, all on one piece of scratch memory.

TensorRT calls a replayed graph undefined once its context has taken another shape, so each captured shape has a context
of its own. Those of one `Contexts` run one after another, and share the memory for activations.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from enginery.backends.tensorrt import versions
from enginery.backends.tensorrt.cuda import Cuda
from enginery.backends.tensorrt.log import BuildLog
from enginery.backends.tensorrt.tensors import Tensor
from enginery.backends.tensorrt.versions import Api
from enginery.errors import InputShapeError, RunError

__all__ = ["Contexts", "Held", "Opened"]

_LOG = logging.getLogger("enginery")

Sizes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Smallest, best and largest shape of one tensor in one profile."""


class Opened:
    """A deserialised engine and what every call needs to know of it.

    Args:
        api: the library.
        engine: the deserialised plan.
        inputs, outputs: as `read_tensors` gives them.
        log: what TensorRT says.
        cuda: the calls.
        cuda_graph: whether calls are captured and replayed.
        detailed: name the layers to NVIDIA's tools.
        runtime_config: what TensorRT-RTX makes contexts with; None for TensorRT.
    """

    def __init__(
        self,
        api: Api,
        engine: Any,
        inputs: tuple[Tensor, ...],
        outputs: tuple[Tensor, ...],
        log: BuildLog,
        *,
        cuda: Cuda,
        cuda_graph: bool = True,
        detailed: bool = False,
        runtime_config: Any = None,
    ) -> None:
        self.api, self.engine, self.log, self.cuda = api, engine, log, cuda
        self.inputs, self.outputs = inputs, outputs
        self.cuda_graph, self.detailed = cuda_graph, detailed
        self.scratch_bytes = versions.scratch_bytes(api, engine)
        self.runtime_config = runtime_config
        self._said: set[str] = set()
        self._errors_told = len(log.errors())
        self._profiles = [self._read_profile(at) for at in range(engine.num_optimization_profiles)]

    def _read_profile(self, at: int) -> dict[str, Sizes]:
        engine = self.engine
        found = {}
        for tensor in self.inputs:
            if not tensor.on_host and -1 in tensor.shape:
                low, best, high = (tuple(shape) for shape in engine.get_tensor_profile_shape(tensor.name, at))
                found[tensor.name] = (low, best, high)
        return found

    def profiles_for(self, shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
        """Return the numbers of the profiles that hold the shapes, the narrowest first.

        Raises:
            InputShapeError: none does; the nearest is named.
        """
        holding = [at for at, sizes in enumerate(self._profiles) if not _outside(sizes, shapes)]
        if not holding:
            at = min(range(len(self._profiles)), key=lambda at: _distance(self._profiles[at], shapes))
            name, axis = _outside(self._profiles[at], shapes)[0]
            low, _, high = self._profiles[at][name]
            raise InputShapeError(
                f"input {name!r}, axis {axis}: size {shapes[name][axis]} is in none of the engine's "
                f"{len(self._profiles)} profiles; the nearest, profile {at}, allows {low[axis]} to {high[axis]} there",
                mend="give sizes inside one profile, or build with a profile that holds them",
            )
        return sorted(holding, key=lambda at: _width(self._profiles[at]))

    def failure(self, what: str) -> RunError:
        """Make the error for a refusal of TensorRT's, with the last of its words that no earlier failure told."""
        errors = self.log.errors()
        said = f": {errors[-1].strip()}" if len(errors) > self._errors_told else ", and said nothing"
        self._errors_told = len(errors)
        return RunError(
            f"{self.api.library.label} {self.api.version} could not {what}{said}",
            mend="the text is its own; see enginery doctor where memory or the driver is meant",
        )

    def say_once(self, text: str) -> None:
        """Tell the user something about this engine the first time only."""
        if text not in self._said:
            self._said.add(text)
            _LOG.warning("%s", text)


class Held:
    """A context with its profile set, and whose shapes it has at the moment."""

    def __init__(self, context: Any, profile_index: int) -> None:
        self.context = context
        self.profile_index = profile_index
        self.owner: object = None


class Contexts:
    """The contexts of one stream, and the scratch memory that they share.

    Args:
        opened: the engine.
        stream: where profiles are set.
    """

    def __init__(self, opened: Opened, stream: Any) -> None:
        self._opened = opened
        self._stream = stream
        self._scratch = opened.cuda.malloc(opened.scratch_bytes)
        self._several = opened.cuda_graph and versions.shares_profiles(opened.api)
        self._all: list[Held] = []
        self._free: list[Held] = []

    def take(self, shapes: Mapping[str, tuple[int, ...]]) -> Held:
        """Return a context whose profile holds the shapes; nobody else has it, where the library allows so many."""
        indices = self._opened.profiles_for(shapes)
        for held in self._free:
            if held.profile_index == indices[0]:
                self._free.remove(held)
                return held
        for index in indices:
            mine = [held for held in self._all if held.profile_index == index]
            if not mine or self._several:
                made = self._make(index)
                if made is not None:
                    return made
            if mine:
                return mine[0]
        raise RunError(
            f"every profile of this engine is in use by another context, and {self._opened.api.library.label} "
            f"{self._opened.api.version} lets no two share one",
            mend="open it with contexts=1, or build it with as many profiles as contexts",
        )

    def give_back(self, held: Held) -> None:
        """Let another shape have a context."""
        if self._several:
            held.owner = None
            self._free.append(held)

    def _make(self, index: int) -> Held | None:
        """Make a context; None where the library lets no second one have this profile."""
        opened = self._opened
        context = versions.new_context(
            opened.api, opened.engine, self._scratch, opened.scratch_bytes, opened.runtime_config
        )
        if context is None:
            raise opened.failure("make an execution context")
        chosen = context.set_optimization_profile_async(index, int(self._stream))
        opened.cuda.synchronize(self._stream)
        if not chosen:
            self._several = False
            return None
        if opened.detailed:
            trt = opened.api.module
            context.nvtx_verbosity = trt.ProfilingVerbosity.DETAILED
        held = Held(context, index)
        self._all.append(held)
        return held

    def close(self) -> None:
        """Let go of the contexts, then of their memory."""
        self._free.clear()
        for held in self._all:
            held.context = None
        self._all.clear()
        self._opened.cuda.free(self._scratch)


def _outside(sizes: Mapping[str, Sizes], shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[str, int]]:
    return [
        (name, axis)
        for name, (low, _, high) in sizes.items()
        for axis, size in enumerate(shapes[name])
        if not low[axis] <= size <= high[axis]
    ]


def _width(sizes: Mapping[str, Sizes]) -> float:
    """Return how much a profile holds: the logarithm of the number of its shapes."""
    ranges = [upper - lower + 1 for low, _, high in sizes.values() for lower, upper in zip(low, high, strict=True)]
    return math.fsum(map(math.log, ranges))


def _distance(sizes: Mapping[str, Sizes], shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return by how much, over all axes, shapes lie outside a profile."""
    return sum(
        max(lower - size, size - upper, 0)
        for name, (low, _, high) in sizes.items()
        for lower, size, upper in zip(low, shapes[name], high, strict=True)
    )
