"""Every error Enginery raises, its exit code, and the mend it carries.

An error says what happened, with which values, and what to do about it. The command line prints the message,
then the mend, and leaves with the exit code of the class; 0 is success and 1 is a defect of Enginery itself.

    EngineryError                        1   base of all below
    ├── UsageError                       2   the words of a call are wrong
    │   ├── UnknownNameError             3   no backend, option or input of that name; the nearest is suggested
    │   └── MissingExtraError            4   an optional library is not installed; carries the pip line
    ├── SourceError                     10   the trained model cannot be taken
    │   ├── SourceNotFoundError         11   no such file, module or factory
    │   ├── CorruptModelError           12   the file is not what its name says, or is cut short
    │   ├── ExportError                 13   no exporter gave a right graph; every reason is listed
    │   │   └── ExporterCrashError      17   every exporter's process died
    │   ├── UnsafeModelError            14   loading the file would run code that it brings
    │   ├── SignatureError              15   a SavedModel has no signature that can be called
    │   └── CustomOperatorError         16   it needs operators that are not here
    ├── GraphError                      20   a graph cannot be transformed as asked
    ├── InputError                      30   arrays do not fit the engine
    │   ├── InputNameError              31   an input is missing or unknown
    │   ├── InputDtypeError             32   wrong element type
    │   ├── InputRankError              33   wrong number of dimensions
    │   ├── InputShapeError             34   a dimension is outside the profile
    │   └── DataError                   35   recorded data cannot be read
    ├── BackendError                    40   a backend failed
    │   ├── BackendUnavailableError     41   its library or its device is not here
    │   ├── BuildError                  42   the graph could not be built; carries the backend's diagnosis
    │   │   └── DeviceMemoryError       48   it ran out of the device's memory, or cannot fit in what is free
    │   ├── ProviderError               43   it would have run elsewhere than asked
    │   ├── PrecisionError              44   it cannot compute in the precision asked for
    │   ├── RunError                    45   the engine failed while running
    │   ├── FeatureError                46   the library's version lacks what was asked for
    │   └── PrecisionMismatchError      47   an engine was built in another precision than asked
    ├── EngineFolderError               50   an engine folder cannot be used
    │   ├── ManifestError               51   engine.json is missing or unreadable
    │   └── HashMismatchError           52   a file is not the one the manifest was written for
    ├── OutputError                     60   a result cannot be written
    │   ├── OutputExistsError           61   something else stands there
    │   └── DiskFullError               62   no space left
    ├── WorkerError                     70   a worker process failed
    │   ├── WorkerCrashError            71   it died; carries the last lines of its log
    │   ├── WorkerTimeoutError          72   it ran past its time limit
    │   ├── WorkerMemoryError           73   it grew past its memory limit
    │   └── EnvironmentSetupError       74   another interpreter has no usable Enginery
    ├── VerifyError                     80   an engine's outputs are further from its source than allowed
    └── NoCandidateError                81   every candidate failed or was rejected; every reason is listed

An interrupt (Ctrl-C) leaves with 130, SIGTERM with 143, a closed terminal (SIGHUP) with 129, each after cleaning up.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar

__all__ = [
    "BackendError",
    "BackendUnavailableError",
    "BuildError",
    "CorruptModelError",
    "CustomOperatorError",
    "DataError",
    "DeviceMemoryError",
    "DiskFullError",
    "EngineFolderError",
    "EngineryError",
    "EnvironmentSetupError",
    "ExportError",
    "ExporterCrashError",
    "FeatureError",
    "GraphError",
    "HashMismatchError",
    "InputDtypeError",
    "InputError",
    "InputNameError",
    "InputRankError",
    "InputShapeError",
    "ManifestError",
    "MissingExtraError",
    "NoCandidateError",
    "OutputError",
    "OutputExistsError",
    "PrecisionError",
    "PrecisionMismatchError",
    "ProviderError",
    "RunError",
    "SignatureError",
    "SourceError",
    "SourceNotFoundError",
    "UnknownNameError",
    "UnsafeModelError",
    "UsageError",
    "VerifyError",
    "WorkerCrashError",
    "WorkerError",
    "WorkerMemoryError",
    "WorkerTimeoutError",
    "by_name",
]

INTERRUPTED_EXIT_CODE = 130


class EngineryError(Exception):
    """Base of every error here: a message (what happened, with which values) and a mend (what to do).

    Args:
        message: what happened, naming the values.
        mend: what to do about it; an empty string where nothing sensible can be said.

    Example:
        >>> error = UsageError("batch is 'x'", mend="give a whole number")
        >>> str(error)
        "batch is 'x'; give a whole number"
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.message}; {self.mend}" if self.mend else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return by_name, (type(self).__name__, self.message, self.mend)


class UsageError(EngineryError):
    """The words of a call are wrong: a shape that cannot be parsed, options that exclude each other."""

    exit_code = 2


class UnknownNameError(UsageError):
    """No backend, option, source or tensor has that name."""

    exit_code = 3

    @classmethod
    def from_choices(cls, kind: str, name: str, choices: Iterable[str]) -> UnknownNameError:
        """Build the error for `name`, suggesting the nearest of `choices`."""
        known = sorted(choices)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        listed = f"known: {', '.join(known)}" if known else f"there is no {kind} here"
        mend = f"did you mean {near[0]!r}? ({listed})" if near else listed
        return cls(f"unknown {kind} {name!r}", mend=mend)


class MissingExtraError(UsageError):
    """An optional library is not installed; the mend is the pip line that brings it."""

    exit_code = 4


class SourceError(EngineryError):
    """The trained model cannot be taken."""

    exit_code = 10


class SourceNotFoundError(SourceError):
    """There is no such file, module or factory."""

    exit_code = 11


class CorruptModelError(SourceError):
    """The file is not what its name says, or it is cut short."""

    exit_code = 12


class ExportError(SourceError):
    """No exporter gave a right graph; the message lists every attempt and its reason."""

    exit_code = 13


class UnsafeModelError(SourceError):
    """Loading the file would run code that it brings along, such as a pickle's."""

    exit_code = 14


class SignatureError(SourceError):
    """A SavedModel has no signature that can be called."""

    exit_code = 15


class CustomOperatorError(SourceError):
    """The model needs operators that are neither ONNX's nor its framework's own, and are not here."""

    exit_code = 16


class ExporterCrashError(ExportError):
    """Every exporter's process died; the message carries the last lines of each log."""

    exit_code = 17


class GraphError(EngineryError):
    """A graph cannot be read, written or transformed as asked."""

    exit_code = 20


class InputError(EngineryError):
    """The arrays given do not fit the engine."""

    exit_code = 30


class InputNameError(InputError):
    """An input is missing, or the engine has no input of that name."""

    exit_code = 31


class InputDtypeError(InputError):
    """An array's element type is not the engine's."""

    exit_code = 32


class InputRankError(InputError):
    """An array has another number of dimensions than the engine's input."""

    exit_code = 33


class InputShapeError(InputError):
    """A dimension lies outside the profile, or disagrees with another input's."""

    exit_code = 34


class DataError(InputError):
    """Recorded data or a data loader cannot be read."""

    exit_code = 35


class BackendError(EngineryError):
    """A backend failed."""

    exit_code = 40


class BackendUnavailableError(BackendError):
    """A backend's library or device is not here."""

    exit_code = 41


class BuildError(BackendError):
    """The graph could not be built."""

    exit_code = 42


class ProviderError(BackendError):
    """The engine would have run elsewhere than asked: a silent fallback, made loud."""

    exit_code = 43


class PrecisionError(BackendError):
    """The backend cannot compute in the precision asked for."""

    exit_code = 44


class RunError(BackendError):
    """The engine failed while running."""

    exit_code = 45


class FeatureError(BackendError):
    """The library's version lacks what was asked for; the message names the feature, the versions and what is here."""

    exit_code = 46


class PrecisionMismatchError(BackendError):
    """An engine was built in another precision than was asked for, as read back from it."""

    exit_code = 47


class DeviceMemoryError(BuildError):
    """A build ran out of the device's memory, or cannot fit in what is free; it may go well when more is."""

    exit_code = 48


class EngineFolderError(EngineryError):
    """An engine folder cannot be used."""

    exit_code = 50


class ManifestError(EngineFolderError):
    """`engine.json` is missing, unreadable, or of a format this version does not know."""

    exit_code = 51


class HashMismatchError(EngineFolderError):
    """A file of the engine folder is not the one its manifest was written for."""

    exit_code = 52


class OutputError(EngineryError):
    """A result cannot be written."""

    exit_code = 60


class OutputExistsError(OutputError):
    """Something that is not ours to replace stands where the result should go."""

    exit_code = 61


class DiskFullError(OutputError):
    """No space is left where the result should go."""

    exit_code = 62


class WorkerError(EngineryError):
    """A worker process failed."""

    exit_code = 70


class WorkerCrashError(WorkerError):
    """A worker process died; the message carries the last lines of its log."""

    exit_code = 71


class WorkerTimeoutError(WorkerError):
    """A worker process ran past its time limit and was ended."""

    exit_code = 72


class WorkerMemoryError(WorkerError):
    """A worker process grew past its memory limit and was ended."""

    exit_code = 73


class EnvironmentSetupError(WorkerError):
    """Another environment's interpreter is missing, or holds no usable Enginery."""

    exit_code = 74


class VerifyError(EngineryError):
    """An engine's outputs are further from its source's than the bound allows."""

    exit_code = 80


class NoCandidateError(EngineryError):
    """Every candidate failed or was rejected; the message lists each reason."""

    exit_code = 81


def by_name(name: str, message: str, mend: str = "") -> EngineryError:
    """Rebuild an error from its class name, as a worker process reports it.

    Args:
        name: a class name of this module; any other name gives a plain `EngineryError`.
        message: what happened.
        mend: what to do.

    Example:
        >>> type(by_name("BuildError", "no kernel")).__name__
        'BuildError'
    """
    found = globals().get(name)
    if isinstance(found, type) and issubclass(found, EngineryError):
        return found(message, mend=mend)
    return EngineryError(f"{name}: {message}", mend=mend)
