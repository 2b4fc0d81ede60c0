"""Which line of the user's code fixes a size: the operators of two calls at two sizes, compared side by side.

A line that writes a batch of 4 into the model is often not the one that fails: ``x.reshape(4, -1)`` takes any batch,
and a later layer, or none at all, finds out. What is found here is the best evidence, not a proof.
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import Any

from enginery.sources.blame import Frame, is_ours, line_of_frames
from enginery.spec import show_sizes

__all__ = ["FindSize", "Step", "find_fixed_size", "find_written_size", "recorded_steps"]

Sizes = tuple[int, ...]

_RESHAPES = ("view", "_unsafe_view", "reshape", "_reshape_copy", "expand", "as_strided", "resize_")
_MAKES = ("zeros", "ones", "empty", "full", "randn", "rand", "arange", "expand", "repeat", "new_zeros", "new_ones")


@dataclass(frozen=True)
class Step:
    """One operator of one call.

    Args:
        name: of the operator, such as ``view``.
        inputs: sizes of its tensors.
        outputs: sizes of what it gave.
        frames: of Python, innermost first; none where TorchScript calls it.
    """

    name: str
    inputs: tuple[Sizes, ...]
    outputs: tuple[Sizes, ...]
    frames: tuple[Frame, ...]


FindSize = Callable[[Sequence[Step], Sequence[Step], Iterable[tuple[int, int]], Iterable[int]], str]


def recorded_steps(torch: ModuleType, call: Callable[[], object]) -> list[Step]:
    """Return the operators that a call of a module runs, in order; as far as it comes, where it raises.

    Args:
        torch: the library.
        call: is called once; what it raises is not raised again, for the caller has seen it before.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    steps: list[Step] = []

    class Recorder(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            del types
            found = func(*args, **(kwargs or {}))
            name = func.overloadpacket.__name__
            sizes = (_sizes(torch, (args, kwargs)), _sizes(torch, found))
            steps.append(Step(name, *sizes, tuple(_frames(sys._getframe(1)))))  # noqa: SLF001
            return found

    with Recorder():
        try:
            call()
        except Exception:  # noqa: BLE001 - it failed before, and was told; the steps before it are what is asked for
            return steps
    return steps


def find_fixed_size(
    one: Sequence[Step], other: Sequence[Step], sizes: Iterable[tuple[int, int]], written: Iterable[int] = ()
) -> str:
    """Return where a varying size became a constant: the line, the operator, and what it gave in both calls.

    Args:
        one: the operators of a call that went well.
        other: those of a call at another size.
        sizes: what each dynamic axis has in both calls.
        written: sizes that the user's code may have in it, besides the first of each pair: those of the example.

    Returns:
        Such as ``net.py:9, in forward: x = x.reshape(4, -1) (view: 4x3x4 becomes 4x12, and 3x3x4 becomes 4x9)``; empty
        where nothing tells.
    """
    pairs = [(a, b) for a, b in sizes if a != b]
    constants = {a for a, _ in pairs} | set(written)
    aligned = list(_aligned(one, other))
    for a, b in aligned:
        if _folds(a, b, pairs, constants):
            return _told(a, b)
    return ""


def find_written_size(
    one: Sequence[Step], other: Sequence[Step], sizes: Iterable[tuple[int, int]], written: Iterable[int] = ()
) -> str:
    """Return where a tensor of a constant size is made that does not come from any input, as by ``zeros(4, 8)``.

    It takes and returns what `find_fixed_size` does; it is weaker evidence, for calls that failed.
    """
    constants = {a for a, b in sizes if a != b} | set(written)
    for a, b in list(_aligned(one, other))[::-1]:
        made = a.name in _MAKES and a.outputs == b.outputs and a.inputs == b.inputs
        new = Counter(itertools.chain(*a.outputs)) - Counter(itertools.chain(*a.inputs))
        if made and set(new) & (constants - {1}) and (line := line_of_frames(a.frames)):
            return f"{line} (it makes {', '.join(map(show_sizes, a.outputs))} whatever the input)"
    return ""


def _aligned(one: Sequence[Step], other: Sequence[Step]) -> Iterator[tuple[Step, Step]]:
    """Yield the operators of both calls in pairs, as long as they are the same ones."""
    for a, b in zip(one, other, strict=False):
        if a.name != b.name or [len(s) for s in a.outputs] != [len(s) for s in b.outputs]:
            return
        yield a, b


def _folds(one: Step, other: Step, pairs: Sequence[tuple[int, int]], constants: set[int]) -> bool:
    """Say whether an operator puts a varying axis into a fixed one at the same place."""
    if one.name not in _RESHAPES or not (one.inputs and other.inputs and one.outputs and other.outputs):
        return False
    before = list(zip(one.inputs[0], other.inputs[0], strict=False))
    after = list(zip(one.outputs[0], other.outputs[0], strict=True))
    for axis, pair in enumerate(before):
        if pair not in pairs or axis >= len(after) or after[:axis] != before[:axis]:
            continue
        size, again = after[axis]
        # Sizes are cut and joined in order: the axis that varied cannot stand behind a fixed one unless that is 1.
        if size == again and (size > 1 or (size in constants and pair not in after)):
            return True
    return False


def _told(one: Step, other: Step) -> str:
    a, b = ((show_sizes(step.inputs[0]), show_sizes(step.outputs[0])) for step in (one, other))
    what = f"{one.name}: {a[0]} becomes {a[1]}, and {b[0]} becomes {b[1]}"
    line = line_of_frames(one.frames)
    return f"{line} ({what})" if line else f"the operator {what}"


def _sizes(torch: ModuleType, tree: Any) -> tuple[Sizes, ...]:
    leaves = torch.utils._pytree.tree_leaves(tree)  # noqa: SLF001
    return tuple(tuple(map(int, leaf.shape)) for leaf in leaves if isinstance(leaf, torch.Tensor))


def _frames(frame: FrameType | None) -> Iterator[Frame]:
    """Yield the frames from an operator's call out to where we called the module."""
    while frame is not None and not is_ours(frame.f_code.co_filename):
        yield frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name
        frame = frame.f_back
