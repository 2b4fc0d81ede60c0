"""Plugin libraries: those that the user names, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from enginery.backends.tensorrt.versions import Api, load_plugin_library, plugin_names
from enginery.errors import BackendError, FeatureError

__all__ = ["load_plugins"]


def load_plugins(api: Api, paths: Sequence[str], logger: Any) -> tuple[str, ...]:
    """Load plugin libraries into this process.

    A library runs code of its own when it is loaded, so one is loaded only where the user has named it.

    Args:
        api: the library that shall find the plugins.
        paths: of the libraries.
        logger: TensorRT's.

    Returns:
        Names of the plugins that there are now.

    Raises:
        FeatureError: TensorRT-RTX has no plugins.
        BackendError: a library is not there, or cannot be loaded; it is named.
    """
    if not paths:
        return ()
    if api.is_rtx:
        raise FeatureError(
            f"{api.library.label} has no plugins, and plugins={','.join(paths)} was asked for",
            mend="leave it out, or build with TensorRT: --backend tensorrt",
        )
    for path in paths:
        if not Path(path).is_file():
            raise BackendError(f"plugin library {path} is not there", mend="give the path of a shared library")
        try:
            load_plugin_library(api, str(Path(path).resolve()), logger)
        except (OSError, RuntimeError) as error:
            mend = f"it must be built for {api.library.label} {api.version}: see what it is linked to with `ldd {path}`"
            raise BackendError(f"plugin library {path} cannot be loaded: {error}", mend=mend) from error
    return plugin_names(api)
