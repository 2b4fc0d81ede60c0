"""An engine folder opened: its plan deserialised, with TensorRT's own words and our diagnosis where that fails."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from enginery.backends.base import Runner
from enginery.backends.tensorrt.versions import Api
from enginery.records import ManifestRecord
from enginery.spec import Option

__all__ = ["deserialize", "open_plan"]


def open_plan(api: Api, folder: Path, manifest: ManifestRecord, options: Mapping[str, Option]) -> Runner:
    """Open the ``model.plan`` of an engine folder.

    Args:
        api: the library to run it with.
        folder: the engine folder.
        manifest: its manifest, read and checked.
        options: of this session, over the manifest's.

    Raises:
        BackendUnavailableError: no GPU, or another than the engine was built for.
        BuildError: TensorRT refused the plan; the message has its own words.
    """
    raise NotImplementedError


def deserialize(api: Api, path: Path, log: Any) -> Any:
    """Return the engine of a plan.

    Args:
        api: the library to read it with.
        path: the plan.
        log: a `BuildLog`, which keeps what TensorRT says.

    Raises:
        BuildError: TensorRT refused it; the message has its own words and our diagnosis.
    """
    raise NotImplementedError
