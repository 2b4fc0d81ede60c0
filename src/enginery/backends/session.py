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
from enginery.backends.base import DeviceRunner, Feeds, Runner
from enginery.backends.device_arrays import DeviceCall, Kind, kind_of
from enginery.dtypes import DTYPES, numpy_dtype
from enginery.errors import (
    EngineryError,
    InputDtypeError,
    InputNameError,
    InputRankError,
    InputShapeError,
    RunError,
    UsageError,
)
from enginery.records import ProfileRecord, TensorInfo
from enginery.spec import show_sizes

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Session"]

_REMEMBERED_SHAPES = 4096


class Session:
    """Checks feeds, runs the engine, and hands outputs back as the caller's kind of array.

    The session owns nothing of the caller's: inputs are read during the call only, and the arrays returned are the
    caller's to keep. Threads may share it: their calls run one after another, or as many at a time as a backend says.

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
        self._gpu = runner if isinstance(runner, DeviceRunner) else None
        self._good_on_device: set[tuple[Any, ...]] = set()
        self._names = tuple(info.name for info in inputs)
        self._closed = False

    @property
    def placement(self) -> str:
        """What it really runs on, such as ``CPUExecutionProvider, 2 threads``."""
        return self._runner.placement

    def run(self, feeds: Feeds, outputs: Feeds | None = None) -> dict[str, Any]:
        """Run once.

        Args:
            feeds: an array for each input by name: numpy's, or any that speak DLPack (torch, CuPy), all of one kind.
                Arrays in the memory of a GPU are taken where they lie, in the order of the caller's stream, by a
                backend that runs there.
            outputs: arrays that outputs go into, by name, of the kind of `feeds`; others are made.

        Returns:
            The outputs by name, in the kind of array that was given; the caller owns them.

        Raises:
            InputNameError: an input is missing or unknown.
            InputDtypeError: wrong element type.
            InputRankError: wrong number of dimensions.
            InputShapeError: a dimension outside the profile, or an array for an output of another shape.
            RunError: the engine failed, or the session is closed.
        """
        checked = self._as_they_are(feeds)
        if checked is None:
            return self._run_converted(feeds, outputs)
        try:
            if outputs is None:
                return self._infer(checked)
            return self._infer_into(checked, outputs)
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

    def timings(self) -> Mapping[str, float]:
        """Return the mean milliseconds of each part since this was last asked; empty where an engine has no parts."""
        tell: Callable[[], Mapping[str, float]] | None = getattr(self._runner, "timings", None)
        return {} if tell is None else tell()

    def pipeline(self, slots: int = 3) -> Any:
        """Keep several batches under way: copies of some while another computes; see its ``map``.

        Raises:
            UsageError: the backend has no pipeline.
        """
        return self._on_gpu("a pipeline").pipeline(slots, self._checked, self._check_named_shapes)

    def profile(self, feeds: Feeds, runs: int = 20) -> ProfileRecord:
        """Time the parts of a call, and each layer, on arrays of the host.

        Raises:
            UsageError: the backend does not tell them apart.
        """
        return self._on_gpu("a profile of its parts").profile(self._checked(feeds), runs)

    def _checked(self, feeds: Feeds) -> dict[str, np.ndarray[Any, Any]]:
        """Return the feeds as checked arrays of the host, contiguous."""
        checked = self._as_they_are(feeds)
        if checked is None:
            if feeds.keys() != set(self._names):
                raise self._name_error(feeds)
            checked = self._as_they_are({name: as_numpy(feeds[name], name, dtype) for name, dtype in self._expected})
        assert checked is not None, "as_numpy made them so"  # noqa: S101
        return checked

    def _check_named_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        if shapes.keys() != set(self._names):
            raise self._name_error(shapes)
        self._check_shapes(shapes)

    def _on_gpu(self, what: str) -> DeviceRunner:
        if self._closed:
            _closed(None)
        if self._gpu is None:
            raise UsageError(f"this backend has no {what.removeprefix('a ')}", mend="open an engine of TensorRT's")
        return self._gpu

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
            self._check_shapes({name: checked[name].shape for name, _ in self._expected})
            if len(self._good) < _REMEMBERED_SHAPES:
                self._good.add(key)
        return checked

    def _infer_into(self, feeds: dict[str, np.ndarray[Any, Any]], outputs: Feeds) -> dict[str, Any]:
        """Run, with the outputs in the caller's arrays."""
        self._check_output_names(outputs)
        for name, array in outputs.items():
            if not isinstance(array, np.ndarray) or not array.flags.writeable:
                raise InputDtypeError(
                    f"what is given for output {name!r} is no numpy array that can be written to",
                    mend="give an array of the kind of the inputs, such as np.empty(shape, dtype)",
                )
        if self._gpu is not None and not self._closed:
            return self._gpu.infer_into(feeds, dict(outputs))
        found = self._infer(feeds)
        for name, array in outputs.items():
            if array.shape != found[name].shape or array.dtype != found[name].dtype:
                raise InputShapeError(
                    f"output {name!r} is {found[name].dtype} of the shape {found[name].shape}, the array given for it "
                    f"{array.dtype} of {array.shape}",
                    mend=f"give np.empty({found[name].shape}, {str(found[name].dtype)!r})",
                )
            np.copyto(array, found[name])
            found[name] = array
        return found

    def _check_output_names(self, outputs: Feeds) -> None:
        known = [info.name for info in self.outputs]
        if unknown := [name for name in outputs if name not in known]:
            raise InputNameError(f"unknown output {unknown[0]!r}", mend=f"the outputs are {', '.join(known)}")

    def _run_converted(self, feeds: Feeds, outputs: Feeds | None) -> dict[str, Any]:
        """Run with arrays of the device as they are, and whatever else is not numpy's converted, or refused."""
        if self._closed:
            _closed(None)
        if self._gpu is not None:
            if (replay := self._gpu.replay) is not None and (again := replay(feeds, outputs)) is not None:
                return again
            for array in feeds.values():
                if (kind := kind_of(array)) is not None:
                    return self._run_on_device(self._gpu, kind, feeds, outputs)
        if feeds.keys() != {info.name for info in self.inputs}:
            raise self._name_error(feeds)
        converted = dict(feeds)
        converted.update({name: as_numpy(feeds[name], name, dtype) for name, dtype in self._expected})
        found = self.run(converted, outputs)
        if holds_torch(feeds.values()):
            return {name: as_torch(array) for name, array in found.items()}
        return found

    def _run_on_device(self, runner: DeviceRunner, kind: Kind, feeds: Feeds, outputs: Feeds | None) -> dict[str, Any]:
        """Run on arrays of the device; a combination of shapes and types that passed once is looked up."""
        if len(feeds) != len(self._names):
            raise self._name_error(feeds)
        read = kind.read
        try:
            found = [read(feeds[name]) for name in self._names]
        except KeyError:
            raise self._name_error(feeds) from None
        except AttributeError:
            raise self._mixed(kind, feeds) from None
        key = tuple([one[1:] for one in found])
        if key not in self._good_on_device:
            self._check_on_device(runner, kind, feeds, found)
            if len(self._good_on_device) < _REMEMBERED_SHAPES:
                self._good_on_device.add(key)
        if outputs is not None:
            self._check_outputs_on_device(kind, outputs)
        addresses, shapes, dtypes = zip(*found, strict=True)
        return runner.infer_on_device(
            DeviceCall(kind, feeds[self._names[0]], addresses, shapes, dtypes, dict(outputs) if outputs else {})
        )

    def _check_outputs_on_device(self, kind: Kind, outputs: Feeds) -> None:
        self._check_output_names(outputs)
        for name, array in outputs.items():
            if type(kind_of(array)) is not type(kind):
                raise InputDtypeError(
                    f"what is given for output {name!r} is a {type(array).__name__} that does not lie where the "
                    "inputs do",
                    mend="give an array of the device, of the kind of the inputs",
                )

    def _mixed(self, kind: Kind, feeds: Feeds) -> InputDtypeError:
        other = next(name for name in self._names if type(kind_of(feeds[name])) is not type(kind))
        return InputDtypeError(
            f"input {other!r} is a {type(feeds[other]).__name__} of the host, others lie on the device",
            mend="give all inputs in one kind of array",
        )

    def _check_on_device(
        self, runner: DeviceRunner, kind: Kind, feeds: Feeds, found: list[tuple[int, tuple[int, ...], Any]]
    ) -> None:
        for name, (_, _, dtype) in zip(self._names, found, strict=True):
            if type(kind_of(feeds[name])) is not type(kind):
                raise self._mixed(kind, feeds)
            said, expected = kind.dtype_name(dtype), runner.device_dtypes[name]
            if said != expected:
                raise InputDtypeError(
                    f"input {name!r} has dtype {said}, the engine takes {expected} on the device",
                    mend=f"convert it to {expected}",
                )
        self._check_shapes({name: shape for name, (_, shape, _) in zip(self._names, found, strict=True)})

    def _check_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        sizes: dict[str, tuple[int, str]] = {}
        for info in filter(_is_tensor, self.inputs):
            shape = tuple(shapes[info.name])
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

    def _name_error(self, feeds: Mapping[str, Any]) -> InputNameError:
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
