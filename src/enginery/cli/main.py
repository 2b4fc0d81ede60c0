"""The command ``enginery``: maps errors to messages and exit codes around a testable body."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click as plain_click
import rich_click as click

from enginery import __version__
from enginery.cli import bench, build, doctor, export, inspect, onnx2trt, optimize, run, trtexec, verify, view
from enginery.errors import INTERRUPTED_EXIT_CODE, EngineryError, UnknownNameError, UsageError

__all__ = ["Invocation", "main", "main_inner"]

DEBUG_VARIABLE = "ENGINERY_DEBUG"
_COMPLETE_VARIABLE = "_ENGINERY_COMPLETE"
_DEFECT_EXIT_CODE = 1
_BROKEN_PIPE_EXIT_CODE = 141
_SIGNAL_EXIT_CODE = 128
_ENDS = (signal.SIGTERM, signal.SIGHUP)


@dataclass
class Invocation:
    """What the outermost options of one call ask for, and the folder where a search is kept."""

    verbose: bool = False
    kept: str | None = None


class Ended(BaseException):
    """A signal asks this process to end; everything that has something to clean up does so on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


class NearestGroup(click.RichGroup):
    """A group of commands that suggests the nearest name for one it does not have."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or raise `UsageError` with the nearest one."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            found = UnknownNameError.from_choices("command", name, self.list_commands(ctx))
            raise UsageError(found.message, mend=found.mend)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order of the work, not of the alphabet."""
        del ctx
        return list(self.commands)


@click.group(cls=NearestGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="enginery %(version)s")
@click.option("--verbose", is_flag=True, help=f"Show the traceback of an error; {DEBUG_VARIABLE}=1 does the same.")
@click.pass_context
def enginery(context: click.Context, *, verbose: bool) -> None:
    """Turn a trained model into an inference engine that is fast, verified and explained.

    Start with: enginery optimize model.onnx
    """
    invocation: Invocation = context.obj
    invocation.verbose = invocation.verbose or verbose
    if context.invoked_subcommand is None:
        print(context.get_help())
        context.exit(UsageError.exit_code)


for _command in (optimize, export, build, inspect, run, verify, bench, doctor, view, trtexec, onnx2trt):
    enginery.add_command(_command.command)


def main_inner(argv: Sequence[str], invocation: Invocation | None = None) -> int:
    """Run one command; every error passes through to the caller.

    Args:
        argv: the words after ``enginery``.
        invocation: filled with what the outermost options ask for.

    Returns:
        0 for help, version and finished commands; 2 where no command was named.
    """
    if _COMPLETE_VARIABLE in os.environ:
        enginery.main(list(argv), prog_name="enginery")  # answers the shell, and leaves
    try:
        with enginery.make_context("enginery", list(argv), obj=invocation or Invocation()) as context:
            enginery.invoke(context)
    except plain_click.exceptions.Exit as left:
        return left.exit_code
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: the words after ``enginery``; those of this process by default.

    Returns:
        0 when done, 2 for wrong words, 130 after an interrupt, 128 and the signal's number after another signal that
        asks to end, 1 for a defect of Enginery itself, and for every other error the code of its class
        (`enginery.errors` lists them).
    """
    invocation = Invocation(verbose=bool(os.environ.get(DEBUG_VARIABLE)))
    try:
        with _orderly_ends(), _loud_lines():
            code = main_inner(sys.argv[1:] if argv is None else argv, invocation)
            sys.stdout.flush()  # now, while a reader that has gone is an error that is caught
            return code
    except EngineryError as error:
        return _tell(error.message, error.mend, error.exit_code, invocation)
    except click.ClickException as error:
        return _tell(error.format_message(), _usage_mend(error), error.exit_code, invocation)
    except (Ended, KeyboardInterrupt, plain_click.exceptions.Abort) as error:
        return _tell_ended(error, invocation)
    except BrokenPipeError:
        return _leave_broken_pipe()
    except Exception as error:  # noqa: BLE001 - the last stand of the program
        message = f"{type(error).__name__}: {error}"
        mend = f"this is a defect of Enginery; {DEBUG_VARIABLE}=1 shows the traceback to report"
        return _tell(message, mend, _DEFECT_EXIT_CODE, invocation)


def _tell(message: str, mend: str, code: int, invocation: Invocation) -> int:
    """Write an error to stderr, and its traceback where that was asked for."""
    if invocation.verbose:
        import traceback

        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    for line in mend.splitlines():
        print(f"mend: {line}", file=sys.stderr)
    return code


def _tell_ended(error: BaseException, invocation: Invocation) -> int:
    left = _left(invocation)
    if isinstance(error, Ended):
        print(f"ended by {error.signal.name}; {left}", file=sys.stderr)
        return _SIGNAL_EXIT_CODE + error.signal
    print(f"interrupted; {left}", file=sys.stderr)
    return INTERRUPTED_EXIT_CODE


def _left(invocation: Invocation) -> str:
    """Say what an interrupted call leaves behind."""
    from enginery.tuning.journal import NAME

    kept = Path(invocation.kept) / NAME if invocation.kept else None
    if kept is None or not kept.exists():
        return "nothing was written"
    return f"no engine was written; the search is kept in {kept}, and the same command goes on from it"


def _usage_mend(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"see `{context.command_path} --help`" if context is not None else ""


def _leave_broken_pipe() -> int:
    """Leave quietly when the reader of stdout has gone, as ``head`` does."""
    # The interpreter flushes stdout on its way out, and would complain once more.
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _BROKEN_PIPE_EXIT_CODE


class LoudLines(logging.Handler):
    """Shows what the library says to its logger, where no progress listens.

    It looks stderr up for each line, for a progress bar puts itself in its place while it is drawn.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        print(f"note: {record.getMessage()}", file=sys.stderr)


@contextlib.contextmanager
def _orderly_ends() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does; one that the caller has set otherwise, as nohup, is kept."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may be told of signals
        return

    def end(number: int, _frame: object) -> None:
        raise Ended(number)

    turned = [number for number in _ENDS if signal.getsignal(number) is signal.SIG_DFL]
    for number in turned:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in turned:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def _loud_lines() -> Iterator[None]:
    log, handler = logging.getLogger("enginery"), LoudLines(logging.WARNING)
    propagated = log.propagate
    log.addHandler(handler)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagated


if __name__ == "__main__":
    sys.exit(main())
