"""``enginery onnx2trt``: the flags of onnx2trt, which is no longer published, on every version of TensorRT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import rich_click as click

from enginery.cli.flags import Flag, FlagCommand, Given, Tool, read_flags, read_number
from enginery.cli.trtexec import framed, run_and_show
from enginery.errors import UsageError

if TYPE_CHECKING:
    from enginery.spec import Option, Shape

__all__ = ["ONNX2TRT", "command", "split_letters"]

_HEAD = """Build a TensorRT plan from an ONNX model, as onnx2trt did.

  enginery onnx2trt model.onnx -o model.plan -b 8 -d 16

What each flag means here:"""
_PRECISIONS = {"32": "fp32", "16": "fp16", "8": "int8"}
_BATCH = 32
_MIB = 1 << 20
_SIMPLIFY = "`enginery build` simplifies a graph and says what it did"

ONNX2TRT = Tool(
    "onnx2trt",
    (
        (
            "Flags",
            (
                Flag("o", "FILE", "the plan to write; FILE.engine beside it is the engine folder", versions=""),
                Flag("b", "N", "the first axis of each input, where it is dynamic, goes from 1 to N (32)", versions=""),
                Flag("w", "BYTES", "option workspace_mib, in bytes", versions=""),
                Flag("d", "32|16|8", "precision fp32, fp16 or int8 for the whole graph (32)", versions=""),
                Flag("l", "", "list the layers that were built", versions=""),
                Flag("v", "", "show TensorRT's own log; builds in this process", versions="", repeats=True),
                Flag("q", "", "leave out what each flag means", versions="", repeats=True),
                Flag("V", "", "print the versions", versions=""),
                Flag("h", "", "print this", ("help",), versions=""),
                Flag("t", "FILE", "no text form is written", versions="", mend="see the graph with `enginery view`"),
                Flag("T", "FILE", "no text form is written", versions="", mend="see the graph with `enginery view`"),
                Flag("O", "PASSES", "passes are not chosen one by one", versions="", mend=_SIMPLIFY),
                Flag("F", "", "passes are not chosen one by one", versions="", mend=_SIMPLIFY),
                Flag("p", "", "passes are not chosen one by one", versions="", mend=_SIMPLIFY),
                Flag("g", "", "the builder has no debug mode", versions="", mend="give -v for TensorRT's own log"),
                Flag("backend", "NAME", "the library that builds", versions=""),
            ),
        ),
    ),
    words="model.onnx",
)


class Onnx2TrtCommand(FlagCommand):
    """The command, whose help is the table of flags."""

    def get_help(self, ctx: click.Context) -> str:
        """Return the table of flags."""
        del ctx
        return ONNX2TRT.help(_HEAD)


@click.command("onnx2trt", cls=Onnx2TrtCommand, add_help_option=False)
@click.pass_context
def command(context: click.Context, words: tuple[str, ...]) -> None:
    """Build a TensorRT plan from an ONNX model by onnx2trt's flags.

    Example: enginery onnx2trt model.onnx -o model.plan -b 8 -d 16
    """
    from dataclasses import replace

    from enginery.cli.trtexec import meanings
    from enginery.trtexec_spec import TrtexecSpec, choose_library

    with framed("onnx2trt", words, quiet=False) as frame:
        given, plain = read_flags(ONNX2TRT, split_letters(words))
        by_name = {one.flag.name: one for one in given}
        if not words or "h" in by_name or "V" in by_name:
            frame.quiet = True
            print(_versions() if "V" in by_name else context.get_help())
            context.exit(0 if words else 2)
        if len(plain) != 1 or "o" not in by_name:
            models = "no model" if not plain else "one model" if len(plain) == 1 else f"{len(plain)} models"
            raise UsageError(f"{models} and {'a' if 'o' in by_name else 'no'} plan are named",
                             mend="write it as: enginery onnx2trt model.onnx -o model.plan")  # fmt: skip
        spec = TrtexecSpec(
            onnx=plain[0], save=by_name["o"].value, precision=_precision(by_name), measure=False,
            options=_options(by_name), dump_layers="l" in by_name, verbose="v" in by_name,
            backend=by_name["backend"].value if "backend" in by_name else "",
        )  # fmt: skip
        library = choose_library(spec)
        frame.begin(library)
        spec = replace(spec, shapes=_shapes(spec.onnx, by_name))
        run_and_show(spec, library, () if "q" in by_name else meanings(given, library), as_json=False)


def split_letters(words: Sequence[str]) -> list[str]:
    """Part letters that are written together, as C's getopt lets them be.

    Example:
        >>> split_letters(["-vl", "-b8", "m.onnx", "-o", "m.plan"])
        ['-v', '-l', '-b', '8', 'm.onnx', '-o', 'm.plan']
    """
    known = {flag.name: flag for flag in ONNX2TRT.flags}
    parted: list[str] = []
    for word in words:
        rest = word[1:]
        if not word.startswith("-") or word.startswith("--") or rest.partition("=")[0] in known or not rest:
            parted.append(word)
            continue
        while rest and rest[0] in known:
            letter, rest = rest[0], rest[1:]
            parted.append(f"-{letter}")
            if known[letter].takes and rest:
                parted.append(rest)
                rest = ""
        if rest:
            parted.append(f"-{rest}")
    return parted


def _precision(given: Mapping[str, Given]) -> str:
    depth = given["d"].value if "d" in given else "32"
    if depth not in _PRECISIONS:
        raise UsageError(f"-d is {depth!r}", mend="give the bits of a number: 32, 16 or 8")
    return _PRECISIONS[depth]


def _options(given: Mapping[str, Given]) -> dict[str, Option]:
    return {"workspace_mib": max(int(read_number(given["w"], 1)) // _MIB, 1)} if "w" in given else {}


def _shapes(model: str, given: Mapping[str, Given]) -> dict[str, Shape]:
    """Give the first axis of each input 1 to the largest batch, where the model leaves it open.

    Raises:
        UsageError: another axis is open, or the model has fixed the batch that -b names otherwise.
    """
    from enginery import steps
    from enginery.records import ManifestRecord
    from enginery.spec import Dim, Shape

    largest = int(read_number(given["b"], 1)) if "b" in given else _BATCH
    graph = steps.inspect(model)
    if isinstance(graph, ManifestRecord):
        raise UsageError(f"{model} is an engine, not an ONNX file", mend="name the model it was built from")
    found: dict[str, Shape] = {}
    for info in graph.inputs:
        sizes = info.shape or ()
        if any(not isinstance(size, int) for size in sizes[1:]):
            mend = "name its sizes: enginery trtexec --onnx=MODEL --saveEngine=PLAN --minShapes=... --optShapes=..."
            raise UsageError(f"input {info.name!r} leaves more than its first axis open: {sizes}", mend=mend)
        if sizes and not isinstance(sizes[0], int):
            rest = (Dim.fixed(int(size)) for size in sizes[1:])
            found[info.name] = Shape((Dim(1, largest, largest), *rest))
    if "b" in given and not found:
        mend = "leave -b out, or make it dynamic: enginery export MODEL -o new.onnx --make-dynamic batch"
        raise UsageError(f"-b is {largest}, and the model has fixed every size", mend=mend)
    return found


def _versions() -> str:
    from enginery import __version__, backends
    from enginery.backends.tensorrt.versions import LIBRARIES

    here = (
        f"{library.label} {backends.get(name).probe().version or 'not here'}" for name, library in LIBRARIES.items()
    )
    return "\n".join([f"enginery {__version__}", *here])
