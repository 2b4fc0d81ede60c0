"""What TensorRT-RTX compiled when an engine first ran here, kept for the user: the next opening compiles nothing.

TensorRT-RTX finishes kernels on the machine that runs them. It does not keep them; it only gives its runtime cache as
bytes. A file holds those of one engine on one GPU with one driver and version, and TensorRT-RTX checks them again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from enginery.backends.tensorrt.timing_cache import Device
from enginery.backends.tensorrt.versions import Api
from enginery.caches import cache_folder, changed_alone
from enginery.errors import OutputError
from enginery.storage import new_file

__all__ = ["RuntimeCache", "attach", "cache_key"]

_KEPT = 64


def cache_key(api: Api, engine_sha256: str, device: Device) -> str:
    """Return the name under which an engine's runtime cache is kept.

    Args:
        api: the library that runs it.
        engine_sha256: hash of the plan, as the manifest has it.
        device: the GPU it runs on.
    """
    what = {"library": api.library.module, "version": api.version, "engine": engine_sha256, **asdict(device)}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:40]


class RuntimeCache:
    """The runtime cache of one opened engine; `keep` it before the engine is closed.

    Args:
        path: the file; None where nothing is kept.
        compiled: TensorRT-RTX's own ``IRuntimeCache``, which must live as long as its contexts.
        notes: what a user should know.
    """

    def __init__(self, path: Path | None = None, compiled: Any = None, notes: tuple[str, ...] = ()) -> None:
        self.path = path
        self.compiled = compiled
        self.notes = list(notes)
        self._read = b""

    def begin(self) -> None:
        """Give TensorRT-RTX what an earlier opening compiled; it refuses what is not of this GPU and version."""
        assert self.path is not None  # noqa: S101 - attach() has looked
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            self.notes.append(f"the runtime cache {self.path} was not used: {error.strerror}")
            return
        if self.compiled.deserialize(content):
            self._read = content
        else:
            self.notes.append(f"the runtime cache {self.path} was not used: TensorRT-RTX refused it; it is made anew")

    def keep(self) -> None:
        """Write what was compiled, where it is more than what was read; a failure is told in `notes`."""
        if self.path is None:
            return
        content = bytes(self.compiled.serialize())
        if content == self._read:
            return
        try:
            with changed_alone(self.path.with_name("runtime")), new_file(self.path) as part:
                part.write_bytes(content)
            _drop_oldest(self.path.parent)
        except (OSError, OutputError) as error:
            self.notes.append(f"the runtime cache was not kept: {error}")
        self._read = content


def attach(api: Api, runtime_config: Any, key: str) -> RuntimeCache:
    """Let contexts made with a configuration use what an earlier opening compiled.

    Args:
        api: the library that runs the engine.
        runtime_config: the ``IRuntimeConfig`` that contexts are made with.
        key: from `cache_key`.

    Returns:
        What to `keep` before the engine is closed; TensorRT itself needs no such cache, and gets none.
    """
    if api.find("IRuntimeCache") is None:
        return RuntimeCache()
    compiled = runtime_config.create_runtime_cache()
    try:
        path = cache_folder("runtime") / f"{key}.cache"
    except OSError as error:
        return RuntimeCache(None, compiled, (f"there is no folder for the runtime cache: {error}",))
    cached = RuntimeCache(path, compiled)
    cached.begin()
    if not runtime_config.set_runtime_cache(compiled):
        cached.notes.append("TensorRT-RTX did not take the runtime cache, so each opening compiles anew")
        cached.path = None
    return cached


def _drop_oldest(folder: Path) -> None:
    files = sorted(folder.glob("*.cache"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files[_KEPT:]:
        file.unlink(missing_ok=True)
