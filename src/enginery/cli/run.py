"""``enginery run``: an engine on arrays or pictures, once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from enginery.cli import options
from enginery.errors import UsageError
from enginery.spec import Option

if TYPE_CHECKING:
    import numpy as np

__all__ = ["command", "write_outputs"]


@click.command("run")
@click.argument("engine")
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@options.output("FILE", "Where the outputs go: a .npz, or a .npy for an engine with one output.")
@options.option
@options.as_json
def command(
    engine: str, inputs: tuple[str, ...], *, output: str | None, options: dict[str, Option], as_json: bool
) -> None:
    """Run an engine once, and show what it answers.

    INPUT is a .npy, a .npz or a picture, as name=file where the engine has several inputs. A picture is resized to
    the input, and its values are scaled to 0..1 for floats; for anything else give the array.

    Example: enginery run model.engine input=photo.png -o outputs.npz
    """
    if output is not None and Path(output).suffix not in (".npz", ".npy"):
        raise UsageError(f"outputs cannot be written as {output}", mend="name a .npz or a .npy file")
    from enginery import steps, storage
    from enginery.cli.output import emit, to_stderr
    from enginery.inputs.recorded import load_feeds
    from enginery.reports.outputs_report import summarise_outputs
    from enginery.reports.text import outputs_text

    with to_stderr():
        feeds = load_feeds(inputs, storage.read_manifest(Path(engine)).inputs)
        outputs = _flat(steps.run(engine, feeds, options=options))
        if output is not None:
            write_outputs(outputs, Path(output))
    emit(summarise_outputs(outputs), lambda style: outputs_text(outputs, style), as_json=as_json)


def write_outputs(outputs: Mapping[str, np.ndarray[Any, Any]], path: Path) -> None:
    """Write arrays by name into a ``.npz``, or a single one into a ``.npy``, without pickles.

    Element types that numpy has no name for (bfloat16, float8) are written as float32, strings as fixed-width text.

    Raises:
        UsageError: several arrays for a ``.npy``.
        OutputError: the file cannot be written.
    """
    import zipfile

    import numpy as np

    from enginery import storage

    if path.suffix == ".npy" and len(outputs) != 1:
        raise UsageError(f"{path} holds one array, the engine has {len(outputs)} outputs", mend="name a .npz file")
    with storage.new_file(path) as part:
        if path.suffix == ".npy":
            np.save(part, _plain(next(iter(outputs.values()))), allow_pickle=False)
            return
        # numpy's own savez takes names as keywords, and so cannot take an output called "file".
        with zipfile.ZipFile(part, "w") as archive:
            for name, array in outputs.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                    np.save(stream, _plain(array), allow_pickle=False)


def _plain(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    if array.dtype.kind == "O":
        return array.astype(str)
    return array if array.dtype.isbuiltin == 1 else array.astype(np.float32)


def _flat(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Name each tensor of a sequence ``name/0``, ``name/1``, ...; an absent optional output is left out."""
    flat: dict[str, Any] = {}
    for name, value in outputs.items():
        if isinstance(value, list | tuple):
            flat |= _flat({f"{name}/{at}": item for at, item in enumerate(value)})
        elif value is not None:
            flat[name] = value
    return flat
