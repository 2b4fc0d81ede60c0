"""``enginery trtexec``: trtexec's flags, on every version of TensorRT, and its summary."""

from __future__ import annotations

import contextlib
import logging
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import rich_click as click

from enginery.cli.flags import FlagCommand, Given, read_flags
from enginery.errors import EngineryError

if TYPE_CHECKING:
    from enginery.progress import Progress
    from enginery.trtexec_queries import Outcome
    from enginery.trtexec_spec import Library, TrtexecSpec

__all__ = ["command", "framed", "meanings", "run_and_show", "tell_defaults"]

_HEAD = """Build and measure as NVIDIA's trtexec does, on whichever TensorRT is here.

  enginery trtexec --onnx=model.onnx --saveEngine=model.plan --fp16
  enginery trtexec --loadEngine=model.plan --shapes=input:8x3x224x224

Flags are written with one dash or two, as --flag=value or --flag value. What each means here:"""
_TYPED = frozenset({"fp16", "bf16", "int8", "fp8", "best", "layerPrecisions", "precisionConstraints"})


class TrtexecCommand(FlagCommand):
    """The command, whose help is the table of flags."""

    def get_help(self, ctx: click.Context) -> str:
        """Return the table of flags."""
        del ctx
        from enginery.cli.trtexec_flags import TRTEXEC

        return TRTEXEC.help(_HEAD)


@click.command("trtexec", cls=TrtexecCommand, add_help_option=False)
@click.pass_context
def command(context: click.Context, words: tuple[str, ...]) -> None:
    """Build and measure by trtexec's flags, on every version of TensorRT.

    Example: enginery trtexec --onnx=model.onnx --saveEngine=model.plan --fp16
    """
    from enginery.cli.trtexec_flags import TRTEXEC
    from enginery.cli.trtexec_request import request
    from enginery.trtexec_spec import choose_library

    as_json = any(word.lstrip("-") == "json" for word in words)
    with framed("trtexec", words, quiet=as_json) as frame:
        given, _ = read_flags(TRTEXEC, words)
        if not words or any(one.flag.name == "help" for one in given):
            print(context.get_help())
            frame.quiet = True
            context.exit(0 if words else 2)
        spec = request(given)
        library = choose_library(spec)
        frame.begin(library)
        said = meanings(given, library, loads=bool(spec.load), measures=spec.measure)
        run_and_show(spec, library, said, as_json=as_json)


class Frame:
    """The first and the last line: what runs, and whether it passed."""

    def __init__(self, tool: str, words: Sequence[str], *, quiet: bool) -> None:
        self.quiet = quiet
        self._tool = tool
        self._line = f"enginery {tool} {shlex.join(words)}".strip()
        self._version = ""

    def begin(self, library: Library) -> None:
        """Write the first line, now that the library is known."""
        self._version = f" [{library.label} {library.number}]"
        self.write("RUNNING")

    def write(self, state: str) -> None:
        """Write one of the two lines."""
        if not self.quiet:
            print(f"&&&& {state} TensorRT.{self._tool}{self._version} # {self._line}", flush=True)


@contextlib.contextmanager
def framed(tool: str, words: Sequence[str], *, quiet: bool) -> Iterator[Frame]:
    """Write PASSED after the block, or FAILED where it raises; the error goes on."""
    frame = Frame(tool, words, quiet=quiet)
    try:
        yield frame
    except (EngineryError, KeyboardInterrupt):
        frame.write("FAILED")
        raise
    frame.write("PASSED")


def meanings(
    given: Sequence[Given], library: Library, *, loads: bool = False, measures: bool = True
) -> tuple[str, ...]:
    """Say once of each flag what it means here, and where the installed version's trtexec has it no more.

    Args:
        given: the flags.
        library: what builds and runs.
        loads: whether a plan is loaded, so that flags of the build do nothing.
        measures: whether queries are measured, so that flags of measuring do something.

    Example:
        >>> from enginery.cli.trtexec_flags import TRTEXEC
        >>> from enginery.trtexec_spec import Library
        >>> flags, _ = read_flags(TRTEXEC, ["--fp16"])
        >>> print(meanings(flags, Library("tensorrt", "11.4.0", "TensorRT"))[0])
        --fp16: precision fp16 for the whole graph (trtexec 11 has no such flag: the graph is typed)
    """
    from enginery.cli.trtexec_flags import idle_in

    said: dict[str, None] = {}
    for one in given:
        flag = one.flag
        text = f"{flag.spelt.partition('=')[0]}: {flag.here}"
        if idle := idle_in(flag, loads=loads, measures=measures):
            text = f"{flag.spelt.partition('=')[0]}: {idle}"
        elif one.value == "false":
            text = f"{flag.spelt}=false: as if it were left out"
        elif flag.name in _TYPED and library.is_rtx:
            text += f" ({library.label} has no such flag: the graph is typed)"
        elif flag.versions and not _knows(flag.versions, library.major):
            why = ": the graph is typed" if flag.name in _TYPED else ""
            text += f" (trtexec {library.major} has no such flag{why})"
        said[text] = None
    return tuple(said)


def _knows(versions: str, major: int) -> bool:
    first, _, last = versions.partition("-")
    return int(first) <= major <= int(last or first)


def tell_defaults(spec: TrtexecSpec, library: Library) -> str:
    """Say what is measured with where no flag says so; versions of trtexec differ."""
    from enginery.trtexec_spec import defaults_of

    asked = {"CUDA graph": spec.cuda_graph, "spin-wait": spec.spin, "data transfers": spec.transfers}
    left = ", ".join(name for name, value in asked.items() if value is None)
    if not left:
        return ""
    late = f"; trtexec 11: {defaults_of(11)}" if library.major < 11 else f"; trtexec 8 and 10: {defaults_of(10)}"  # noqa: PLR2004 - the version's own number
    return f"no flag names {left}: as trtexec {library.major} measures ({defaults_of(library.major)}{late})"


def run_and_show(spec: TrtexecSpec, library: Library, said: Sequence[str], *, as_json: bool) -> None:
    """Do what is asked, and print the report and what was asked for besides."""
    from enginery.cli.output import emit, working
    from enginery.reports.trtexec_report import explanations, summary_text
    from enginery.trtexec import run

    with working() as progress, _shown_log(shown=spec.verbose):
        _tell(spec, library, said, progress)
        found = run(spec, library, progress)
    record = found.record
    emit(record, lambda style: summary_text(record, style), as_json=as_json)
    if not as_json:
        _print_parts(spec, found)
        if spec.verbose and record.queries:
            print(f"\n{explanations()}", flush=True)


@contextlib.contextmanager
def _shown_log(*, shown: bool) -> Iterator[None]:
    """Show the lines of TensorRT's own log on stderr while the block works."""
    if not shown:
        yield
        return
    log, handler = logging.getLogger("enginery.tensorrt"), logging.StreamHandler()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


def _tell(spec: TrtexecSpec, library: Library, said: Sequence[str], progress: Progress) -> None:
    for line in said:
        progress.say(line)
    if library.note:
        progress.say(library.note)
    if spec.measure and not (spec.only_load or spec.only_version) and (defaults := tell_defaults(spec, library)):
        progress.say(defaults)


def _print_parts(spec: TrtexecSpec, found: Outcome) -> None:
    from enginery.cli.output import style
    from enginery.reports.outputs_report import outputs_text
    from enginery.reports.trtexec_report import layers_text, profile_text

    record = found.record
    if spec.dump_layers:
        print(f"\n{layers_text(record.layers, style())}")
    if spec.dump_profile and record.layer_times:
        print(f"\n{profile_text(record.layer_times, record.profile_runs, style())}")
    if spec.dump_output:
        print(f"\n{outputs_text(found.outputs, style())}")
    sys.stdout.flush()
