"""Options that several commands share, each defined once, and how their texts are read.

Heavy modules are imported when a value is read, never when help is printed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from enginery.errors import UnknownNameError, UsageError
from enginery.spec import DROPS, OBJECTIVES, PRECISIONS, Option, check_precision, parse_examples, parse_shapes

if TYPE_CHECKING:
    from enginery.inputs.base import Range
    from enginery.spec import PrecisionPlan

__all__ = [
    "PathText",
    "SourceCommand",
    "as_json",
    "backend",
    "backends",
    "calibration",
    "calibration_method",
    "check_backend",
    "data",
    "environment",
    "example",
    "in_process",
    "make_dynamic",
    "max_drop",
    "max_error",
    "max_latency",
    "min_cosine",
    "no_simplify",
    "objective",
    "option",
    "output",
    "output_name",
    "parse_drops",
    "parse_environments",
    "parse_options",
    "precision",
    "precision_plan",
    "profiles",
    "ranges",
    "resume",
    "search_limit",
    "seed",
    "shapes",
    "signature",
    "source_options",
    "time_limit",
    "values",
    "weight_bits",
    "weights",
]

Parsed = TypeVar("Parsed")


class BackendOption(click.RichOption):
    """An option whose help lists the backends, read from the table when help is asked for."""

    @property
    def help(self) -> str | None:
        """The text of the option, with the names."""
        from enginery.backends import names

        return f"{self._help} Known: {', '.join(names())}."

    @help.setter  # noqa: A003 - click's own name
    def help(self, text: str | None) -> None:
        self._help = text or ""


class SourceCommand(click.RichCommand):
    """A command whose help says what SOURCE may be, read from the table when help is asked for."""

    @property
    def help(self) -> str | None:
        """The text of the command, with the kinds of source where it says ``{sources}``."""
        from enginery.sources import SOURCES

        return (self._help or "").replace("{sources}", "; ".join(row.named for row in SOURCES.values()))

    @help.setter  # noqa: A003 - click's own name
    def help(self, text: str | None) -> None:
        self._help = text


def check_backend(name: str) -> str:
    """Return the name of a backend; raise `UnknownNameError`, with the nearest, for any other word."""
    from enginery.backends import names

    if name not in names():
        raise UnknownNameError.from_choices("backend", name, names())
    return name


def parse_options(texts: Iterable[str]) -> dict[str, Option]:
    """Read ``NAME=VALUE`` texts: true and false, whole numbers, numbers, and else the text itself.

    Raises:
        UsageError: a text has no name or no ``=``, or a name occurs twice.

    Example:
        >>> parse_options(["threads=2", "spin=false", "hint=LATENCY", "scale=0.5"])
        {'threads': 2, 'spin': False, 'hint': 'LATENCY', 'scale': 0.5}
    """
    return {name: _option_value(value) for name, value in _pairs(texts, "option", "NAME=VALUE, such as threads=2")}


def parse_environments(texts: Iterable[str]) -> dict[str, str]:
    """Read ``NAME=PYTHON`` texts.

    Example:
        >>> parse_environments(["old=/opt/old/bin/python"])
        {'old': '/opt/old/bin/python'}
    """
    return dict(_pairs(texts, "environment", "NAME=/path/to/python"))


def parse_drops(texts: Iterable[str]) -> dict[str, float]:
    """Read ``METRIC=SHARE`` texts.

    Raises:
        UsageError: a text has no name or no number.

    Example:
        >>> parse_drops(["top1=0.005"])
        {'top1': 0.005}
    """
    pairs = _pairs(texts, "largest drop", "METRIC=SHARE, such as top1=0.005")
    return {name: _share(name, text) for name, text in pairs}


def _share(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"the largest drop of {name} is {text!r}", mend="give a share from 0 to 1") from error


def _pairs(texts: Iterable[str], kind: str, form: str) -> Iterable[tuple[str, str]]:
    seen: set[str] = set()
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise UsageError(f"{text!r} is no {kind}", mend=f"write it as {form}")
        if name in seen:
            raise UsageError(f"the {kind} {name!r} is given twice", mend="give it once")
        seen.add(name)
        yield name, value


def _option_value(text: str) -> Option:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


def _ranges(texts: Sequence[str]) -> dict[str, Range]:
    if not texts:
        return {}
    from enginery.inputs.base import parse_ranges

    return parse_ranges(texts)


def _objective(name: str) -> str:
    if name not in OBJECTIVES:
        raise UnknownNameError.from_choices("objective", name, OBJECTIVES)
    return name


def _read(parse: Callable[[Any], Parsed]) -> Callable[[click.Context, click.Parameter, Any], Parsed]:
    """Make a callback that reads an option's text."""

    def callback(context: click.Context, parameter: click.Parameter, value: Any) -> Parsed:
        del context, parameter
        return parse(value)

    return callback


def _outlives(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Let the last word on an interrupt know of a folder that outlives it."""
    del parameter
    if context.obj is not None:
        context.obj.kept = value
    return value


class Number(click.FloatRange):
    """A number in a range, neither NaN nor infinite."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it, or refuse it."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


class PathText(click.Path):
    """The path of something to read or to write; an empty one, which pathlib takes for this folder, is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read it, or refuse it."""
        if not str(value).strip():
            self.fail("the path is empty.", param, ctx)
        return str(value)


def _plan(path: str | None) -> PrecisionPlan | None:
    if path is None:
        return None
    from enginery.graph.base import read_plan

    return read_plan(path)


def _output(text: str | None) -> str | None:
    if text is not None and not text.strip():
        raise UsageError("the output has an empty name", mend="name what to write")
    return text


shapes = click.option(
    "--shapes", multiple=True, metavar="NAME=SHAPE", callback=_read(parse_shapes),
    help='Sizes each input may take, such as "input=1..8..32x3x224x224": min..opt..max on any axis.',
)  # fmt: skip
profiles = click.option(
    "--profile", "profiles", multiple=True, metavar="NAME=SHAPE",
    callback=_read(lambda texts: tuple(parse_shapes([text]) for text in texts)),
    help="Sizes inside --shapes that the engine is tuned for as well; once for each (TensorRT).",
)  # fmt: skip
values = click.option(
    "--values", multiple=True, metavar="NAME=VALUES", callback=_read(parse_shapes),
    help='Range of each value of an input that holds sizes, such as "new_size=1..2..8x224" (TensorRT).',
)  # fmt: skip
example = click.option(
    "--example", "examples", multiple=True, metavar="NAME:DTYPE[SIZES]", callback=_read(parse_examples),
    help='An example input, such as "input:float32[1,3,224,224]"; a torch module needs one for each input.',
)  # fmt: skip
signature = click.option("--signature", metavar="NAME", help="Which function of a SavedModel; default: its only one.")
weights = click.option(
    "--weights", type=PathText(), metavar="FILE",
    help="Weights to load into the module that SOURCE returns: a torch state dict.",
)  # fmt: skip
make_dynamic = click.option(
    "--make-dynamic", multiple=True, metavar="NAME[=INPUT:AXIS]",
    help="Let an axis that an ONNX model has fixed vary, such as batch: the first axis of every input.",
)  # fmt: skip
output_name = click.option(
    "--output-name", "output_names", multiple=True, metavar="NAME",
    help="What an output is called: one for each, in order, or OLD=NEW for some.",
)  # fmt: skip
precision = click.option(
    "--precision", metavar="NAME", callback=_read(lambda name: name and check_precision(name)),
    help=f"What to compute in: {', '.join(PRECISIONS)}. Default: fp32, or what the plan says.",
)  # fmt: skip
precision_plan = click.option(
    "--precision-plan", "plan", type=PathText(), metavar="FILE", callback=_read(_plan),
    help="The precision of single nodes: precision.json of an engine folder, as it is or edited.",
)  # fmt: skip
calibration = click.option(
    "--calibration", type=PathText(), metavar="PATH",
    help="Recorded inputs that INT8 ranges follow from: a .npz, a folder of arrays or pictures, or file.py:loader.",
)  # fmt: skip
calibration_method = click.option(
    "--calibration-method", default="minmax", show_default=True, metavar="NAME",
    help="How a range follows from the values seen: minmax, entropy or percentile.",
)  # fmt: skip
weight_bits = click.option(
    "--weight-bits", type=click.Choice(["8", "4"]), callback=_read(lambda text: None if text is None else int(text)),
    help="Store the weights of matrix products in so many bits, and compute as --precision says.",
)  # fmt: skip
precisions = click.option(
    "--precision", default="fp32", show_default=True, metavar="NAME",
    callback=_read(check_precision),
    help=f"What to compute in: {', '.join(PRECISIONS)}, or best to try all that the backends offer.",
)  # fmt: skip
max_error = click.option(
    "--max-error", type=Number(min=0), metavar="NUMBER",
    help="Largest error of any output: relative L2 for floats, else the share that differs. Default: 0.001, or none "
    "where another bound is given.",
)  # fmt: skip
min_cosine = click.option(
    "--min-cosine", type=Number(min=-1, max=1), metavar="NUMBER",
    help="Smallest cosine between any output and the reference's.",
)  # fmt: skip
max_drop = click.option(
    "--max-drop", multiple=True, metavar="METRIC=SHARE", callback=_read(parse_drops),
    help=f"How far a metric may fall below the reference's, such as top1=0.005: {', '.join(DROPS)}.",
)  # fmt: skip
search_limit = click.option(
    "--search-limit", "search_limit_s", type=Number(min=0), default=600.0, show_default=True, metavar="SECONDS",
    help="Most time that one search of a plan between two precisions may take; 0 for no search.",
)  # fmt: skip
resume = click.option(
    "--resume", type=PathText(), metavar="FOLDER", callback=_outlives,
    help="Keep what a search measures in this folder; one that was killed goes on from it.",
)  # fmt: skip
objective = click.option(
    "--objective", default="latency", show_default=True, metavar="NAME",
    callback=_read(_objective), help=f"What the chosen engine is best at: {', '.join(OBJECTIVES)}.",
)  # fmt: skip
max_latency = click.option(
    "--max-latency", "max_latency_ms", type=Number(min=0, min_open=True), metavar="MS",
    help="Reject engines whose median is above it, in milliseconds.",
)  # fmt: skip
backend = click.option(
    "--backend", cls=BackendOption, metavar="NAME",
    callback=_read(lambda name: None if name is None else check_backend(name)),
    help="What builds and runs the engine. Default: onnxruntime, or what a hand-built network is written for.",
)  # fmt: skip
backends = click.option(
    "--backend", "backends", cls=BackendOption, multiple=True, metavar="NAME",
    help="Try only this one; may be given several times. Default: all that are here.",
)  # fmt: skip
option = click.option(
    "--option", "options", multiple=True, metavar="NAME=VALUE", callback=_read(parse_options),
    help="An option of the backend's own, such as threads=2.",
)  # fmt: skip
data = click.option(
    "--data", type=PathText(), metavar="PATH",
    help="Recorded inputs: a .npz, a folder of .npy, or file.py:loader. An array named labels gives the accuracy.",
)  # fmt: skip
ranges = click.option(
    "--range", "ranges", multiple=True, metavar="NAME=LOW..HIGH", callback=_read(_ranges),
    help='Range of the random values of an input, such as "ids=0..30521".',
)  # fmt: skip
environment = click.option(
    "--environment", "environments", multiple=True, metavar="NAME=PYTHON", callback=_read(parse_environments),
    help="Another interpreter with Enginery in it, such as old=/opt/old/bin/python; its engines join the table.",
)  # fmt: skip
seed = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="NUMBER", help="Of the random inputs."
)
no_simplify = click.option(
    "--no-simplify", "simplify", flag_value=False, default=True, type=bool, help="Build the graph as it is."
)
in_process = click.option(
    "--in-process", is_flag=True, help="Build in this process, where a debugger can follow; a crash ends it all."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print the record as JSON, and nothing else.")


def output(metavar: str, help_text: str, *, required: bool = False) -> Callable[[Any], Any]:
    """Make ``-o/--output``, whose meaning differs between commands."""
    return click.option("-o", "--output", required=required, metavar=metavar, callback=_read(_output), help=help_text)


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what may be said of SOURCE: ``--example``, ``--output-name``, ``--signature``, ``--weights``, and others."""
    for add in (make_dynamic, weights, signature, output_name, example):
        command = add(command)
    return command


def time_limit(default: float, help_text: str) -> Callable[[Any], Any]:
    """Make ``--time-limit``, whose default differs between commands."""
    return click.option(
        "--time-limit", "limit_s", type=Number(min=0, min_open=True), default=default, metavar="SECONDS",
        help=f"{help_text} [default: {default:g}]",
    )  # fmt: skip
