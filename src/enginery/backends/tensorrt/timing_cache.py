"""Timings of kernels, kept for the user between builds: what one build has timed, the next one does not time again.

A timing holds for one library, version, GPU and driver, so each such set has a file of its own in the user's cache
folder. The set is in the file's name and, with the file's hash, in a small JSON file beside it; both are checked
before a byte is handed to TensorRT, which checks the rest (`ignore_mismatch` is never set).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from enginery.backends.tensorrt.versions import Api
from enginery.caches import cache_folder, changed_alone
from enginery.errors import OutputError
from enginery.records import MachineRecord
from enginery.storage import new_file, write_text

__all__ = ["Attached", "Device", "attach"]

_OFF = "off"


@dataclass(frozen=True)
class Device:
    """The GPU that a build is timed on, as far as timings depend on it.

    Args:
        name: such as ``NVIDIA L4``.
        compute_capability: such as ``8.9``.
        driver: its version.
    """

    name: str
    compute_capability: str
    driver: str

    @classmethod
    def of(cls, machine: MachineRecord, index: int = 0) -> Device | None:
        """Return the GPU of that number; None where the machine has none.

        Example:
            >>> from dataclasses import replace
            >>> from enginery.machine import describe_machine
            >>> line = "NVIDIA L4, 23034 MiB, compute capability 8.9"
            >>> Device.of(replace(describe_machine(), gpus=(line,), driver="580.65.06"))
            Device(name='NVIDIA L4', compute_capability='8.9', driver='580.65.06')
        """
        if index >= len(machine.gpus):
            return None
        line = machine.gpus[index]
        capability = re.search(r"compute capability (\d+\.\d+)", line)
        return cls(line.partition(",")[0], capability[1] if capability else "", machine.driver or "")


class Attached:
    """A timing cache that a build uses; `keep` it when the build has ended well.

    Args:
        path: the file; None where nothing is kept.
        notes: what a user should know, such as that a file was not used.
        named: whether the user named the file.
    """

    def __init__(self, path: Path | None = None, notes: tuple[str, ...] = (), *, named: bool = False) -> None:
        self.path = path
        self._named = named
        self.notes = list(notes)
        self.entries_bytes = 0
        self._key: dict[str, str] = {}
        self._read_sha256 = ""

    def begin(self, config: Any, key: dict[str, str]) -> None:
        """Give the build what earlier ones have timed, or an empty cache where there is nothing that fits."""
        self._key = key
        self._leave_to_others()
        content = self._checked() if self.path is not None else b""
        if content and not _set(config, content):
            self.notes.append(f"the timing cache {self.path} was not used: TensorRT refused it; it is written anew")
            content = b""
        if not content and not _set(config, b"") and self.path is not None:
            self.notes.append("TensorRT made no timing cache, so nothing is kept of this build's timings")
            self.path = None
        self.entries_bytes = len(content)
        self._read_sha256 = _hash(content)

    def keep(self, config: Any) -> None:
        """Write what this build has timed, together with what other processes have written meanwhile.

        A cache folder that cannot be written to is told in `notes`: the engine is not lost for it.
        """
        if self.path is None:
            return
        cache = config.get_timing_cache()
        try:
            with changed_alone(self.path):
                meanwhile = self._checked()
                if meanwhile and _hash(meanwhile) != self._read_sha256:
                    other = config.create_timing_cache(meanwhile)
                    if other is None or not cache.combine(other, False):  # noqa: FBT003 - the binding's own form
                        self.notes.append(f"what another build wrote to {self.path} could not be combined with this")
                self._write(bytes(cache.serialize()))
        except (OSError, OutputError) as error:
            self.notes.append(f"the timing cache was not kept: {error}")

    def _leave_to_others(self) -> None:
        """Do not touch a file that the user named and another tool has made."""
        if self.path is None or not self._named or not self.path.exists() or _label_of(self.path).exists():
            return
        self.notes.append(
            f"the timing cache {self.path} was not used and is left as it is: {_label_of(self.path).name}, which says "
            "what it was written for, is missing, so another tool made it; name a file of your own for Enginery"
        )
        self.path = None

    def _write(self, content: bytes) -> None:
        assert self.path is not None  # noqa: S101 - keep() has looked
        with new_file(self.path) as part:
            part.write_bytes(content)
        write_text(_label_of(self.path), json.dumps({**self._key, "sha256": _hash(content)}, indent=1))
        self.entries_bytes = len(content)
        self._read_sha256 = _hash(content)

    def _checked(self) -> bytes:
        """Return the file's bytes where it was written for this key and is whole; else none, and say so."""
        assert self.path is not None  # noqa: S101 - attach() has looked
        try:
            content = self.path.read_bytes()
            label = json.loads(_label_of(self.path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            if self.path.exists():
                self._refuse(f"{Path(str(error.filename)).name}, which says what it was written for, is missing")
            return b""
        except (OSError, ValueError) as error:
            return self._refuse(f"it cannot be read ({error})")
        if not isinstance(label, dict):
            return self._refuse("what stands beside it is no description")
        for name, wanted in self._key.items():
            if label.get(name) != wanted:
                return self._refuse(f"it is of {name} {label.get(name)!r}, and this is {wanted!r}")
        if label.get("sha256") != _hash(content):
            return self._refuse("it is damaged")
        return content

    def _refuse(self, why: str) -> bytes:
        note = f"the timing cache {self.path} was not used: {why}; it is written anew"
        if note not in self.notes:
            self.notes.append(note)
        return b""


def attach(api: Api, config: Any, device: Device | None, where: str = "") -> Attached:
    """Give a build the timings of earlier ones.

    Args:
        api: the library that builds.
        config: the ``IBuilderConfig`` of the build.
        device: the GPU it is timed on; None where there is none, and nothing is timed.
        where: the option ``timing_cache``: empty for the user's cache folder, ``off``, or the path of a file.

    Returns:
        What to `keep` after the build; its notes say what was not used, and why.
    """
    if api.is_rtx:  # it times nothing while it builds, and only asking it for a cache makes it look for a GPU
        asked = where not in ("", _OFF)
        return Attached(None, ("TensorRT-RTX has no timing cache, so timing_cache does nothing",) if asked else ())
    if where == _OFF or device is None:
        return Attached(None)
    key = {"library": api.library.module, "version": api.version, **asdict(device)}
    try:
        path = Path(where).absolute() if where else cache_folder("timing") / _file_name(key)
    except OSError as error:
        return Attached(None, (f"there is no folder for the timing cache: {error}",))
    attached = Attached(path, named=bool(where))
    attached.begin(config, key)
    return attached


def _set(config: Any, content: bytes) -> bool:
    cache = config.create_timing_cache(content)
    return cache is not None and bool(config.set_timing_cache(cache, False))  # noqa: FBT003 - the binding's own form


def _file_name(key: dict[str, str]) -> str:
    return "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part) for part in key.values()) + ".cache"


def _label_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
