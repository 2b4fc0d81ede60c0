"""An opened engine as callers see it: cheap checks that name the mend, and the caller's kind of array.

The checks cost a few microseconds. A combination of shapes that passed once is remembered, so the usual call compares
one dtype and one shape for each input and looks the combination up in a set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from enginery.backends.arrays import as_numpy, as_torch, holds_torch
from enginery.backends.base import Feeds, Runner
from enginery.dtypes import DTYPES, numpy_dtype
from enginery.errors import EngineryError, InputNameError, InputRankError, InputShapeError, RunError
from enginery.records import TensorInfo
from enginery.spec import show_sizes

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Session"]

_REMEMBERED_SHAPES = 4096


class Session:
    """Checks feeds, runs the engine, and hands outputs back as the caller's kind of array.

    The session owns nothing of the caller's: inputs are read during the call only, and the arrays returned are the
    caller's to keep. One call runs at a time.

    Args:
        runner: the opened engine; closed with the session.
        inputs: with the profile each accepts.
        outputs: with symbolic names for dimensions that vary.
        diagnose: what the backend's failure probably means and what to do, or None.

    Example:
        >>> from enginery.backends.null import NullRunner
        >>> x, y = TensorInfo("x", "float32", ("batch", 2)), TensorInfo("y", "float32", ("batch",))
        >>> with Session(NullRunner((x,), (y,)), (x,), (y,)) as session:
        ...     session(np.ones((3, 2), np.float32))
        array([0., 0., 0.], dtype=float32)
    """

    def __init__(
        self,
        runner: Runner,
        inputs: tuple[TensorInfo, ...],
        outputs: tuple[TensorInfo, ...],
        diagnose: Callable[[Exception], str | None] = lambda _: None,
    ) -> None:
        self._runner = runner
        self._infer: Callable[[dict[str, np.ndarray[Any, Any]]], dict[str, Any]] = runner.infer
        self._diagnose = diagnose
        self.inputs = inputs
        self.outputs = outputs
        self._expected = tuple((info.name, numpy_dtype(info.dtype)) for info in inputs if _is_tensor(info))
        # Sequences and optionals are handed through as they are; only single-operator graphs tend to have them.
        self._opaque = tuple(info.name for info in inputs if not _is_tensor(info))
        self._good: set[tuple[tuple[int, ...], ...]] = set()
        self._closed = False

    @property
    def placement(self) -> str:
        """What it really runs on, such as ``CPUExecutionProvider, 2 threads``."""
        return self._runner.placement

    def run(self, feeds: Feeds) -> dict[str, Any]:
        """Run once.

        Args:
            feeds: an array for each input by name: numpy's, or any that speak DLPack (torch, CuPy), all of one kind.

        Returns:
            The outputs by name, in the kind of array that was given; the caller owns them.

        Raises:
            InputNameError: an input is missing or unknown.
            InputDtypeError: wrong element type.
            InputRankError: wrong number of dimensions.
            InputShapeError: a dimension outside the profile.
            RunError: the engine failed, or the session is closed.
        """
        checked = self._as_they_are(feeds)
        if checked is None:
            return self._run_converted(feeds)
        try:
            return self._infer(checked)
        except EngineryError:
            raise
        except Exception as error:
            mend = self._diagnose(error) or "the text above is the library's own"
            raise RunError(f"the engine failed: {error}", mend=mend) from error

    def __call__(self, *arrays: Any, **named: Any) -> Any:
        """Run on arrays in the order of the inputs, or by name; a single output comes back by itself.

        Raises:
            InputNameError: more arrays than inputs, or an input given twice.
        """
        if len(arrays) > len(self.inputs):
            raise InputNameError(
                f"{len(arrays)} arrays for {len(self.inputs)} inputs",
                mend=f"the inputs are {self._input_names()}",
            )
        feeds = {info.name: array for info, array in zip(self.inputs, arrays, strict=False)}
        if twice := sorted(feeds.keys() & named.keys()):
            raise InputNameError(f"input {twice[0]!r} is given twice", mend="give it once, by place or by name")
        outputs = self.run({**feeds, **named})
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def close(self) -> None:
        """Give up what the engine holds; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._infer = _closed
            self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _as_they_are(self, feeds: Feeds) -> dict[str, np.ndarray[Any, Any]] | None:
        """Return the feeds, checked; None where one is no contiguous numpy array of the right dtype."""
        shapes = []
        checked: dict[str, np.ndarray[Any, Any]] = {}
        try:
            for name, dtype in self._expected:
                array = feeds[name]
                if type(array) is not np.ndarray or array.dtype != dtype or not array.flags.c_contiguous:
                    return None
                shapes.append(array.shape)
                checked[name] = array
            for name in self._opaque:
                checked[name] = feeds[name]
        except KeyError:
            raise self._name_error(feeds) from None
        if len(feeds) != len(checked):
            raise self._name_error(feeds)
        key = tuple(shapes)
        if key not in self._good:
            self._check_shapes(checked)
            if len(self._good) < _REMEMBERED_SHAPES:
                self._good.add(key)
        return checked

    def _run_converted(self, feeds: Feeds) -> dict[str, Any]:
        """Run with whatever is not a contiguous numpy array of the right dtype converted, or refused."""
        if feeds.keys() != {info.name for info in self.inputs}:
            raise self._name_error(feeds)
        converted = dict(feeds)
        converted.update({name: as_numpy(feeds[name], name, dtype) for name, dtype in self._expected})
        outputs = self.run(converted)
        if holds_torch(feeds.values()):
            return {name: as_torch(array) for name, array in outputs.items()}
        return outputs

    def _check_shapes(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> None:
        sizes: dict[str, tuple[int, str]] = {}
        for info in filter(_is_tensor, self.inputs):
            shape = feeds[info.name].shape
            expected = info.profile.dims if info.profile is not None else info.shape
            if expected is None:
                continue
            if len(shape) != len(expected):
                raise InputRankError(
                    f"input {info.name!r} has {len(shape)} dimensions {shape}, the engine takes {len(expected)}: "
                    f"{_shown(info)}",
                    mend="add or drop an axis, for example the batch: array[None]",
                )
            for axis, size in enumerate(shape):
                self._check_axis(info, axis, size, sizes)

    def _check_axis(self, info: TensorInfo, axis: int, size: int, sizes: dict[str, tuple[int, str]]) -> None:
        declared = None if info.shape is None else info.shape[axis]
        if isinstance(declared, int) and size != declared:
            raise InputShapeError(
                f"input {info.name!r}, axis {axis}: size is {size}, the engine takes {declared}",
                mend=f"give the shape {_shown(info)}, or build an engine for other sizes, where the model allows them",
            )
        if info.profile is not None and size not in info.profile.dims[axis]:
            dim = info.profile.dims[axis]
            allowed = f"{dim.min} to {dim.max}" if dim.dynamic else str(dim.min)
            raise InputShapeError(
                f"input {info.name!r}, axis {axis}{_named(declared)}: size {size} is outside the profile, "
                f"which allows {allowed}",
                mend=f"give a size in that range, or build with --shapes {info.name}=... that holds {size}",
            )
        if isinstance(declared, str) and declared != "?":
            first, where = sizes.setdefault(declared, (size, f"input {info.name!r} axis {axis}"))
            if first != size:
                raise InputShapeError(
                    f"input {info.name!r}, axis {axis}{_named(declared)}: size is {size}, but {where} has {first}",
                    mend=f"every {declared} must have one size in a call",
                )

    def _name_error(self, feeds: Feeds) -> InputNameError:
        known = [info.name for info in self.inputs]
        unknown = [name for name in feeds if name not in known]
        missing = [name for name in known if name not in feeds]
        said = [f"unknown input {name!r}" for name in unknown] + [f"input {name!r} is missing" for name in missing]
        return InputNameError("; ".join(said), mend=f"the inputs are {self._input_names()}")

    def _input_names(self) -> str:
        return ", ".join(repr(info.name) for info in self.inputs) or "none"


def _closed(_: object) -> NoReturn:
    raise RunError("the session is closed", mend="open the engine again")


def _is_tensor(info: TensorInfo) -> bool:
    return info.dtype in DTYPES


def _named(declared: int | str | None) -> str:
    return f" ({declared})" if isinstance(declared, str) and declared != "?" else ""


def _shown(info: TensorInfo) -> str:
    return str(info.profile) if info.profile is not None else show_sizes(info.shape or ())
