"""The flags of another tool: what each is, what it means here, and how a line of them is read.

A flag is written ``--name=value``, ``--name value``, or alone, with one dash or two, as its tool takes it or not.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import rich_click as click

from enginery.errors import UnknownNameError, UsageError

__all__ = ["Flag", "FlagCommand", "Given", "Tool", "read_flags", "read_number"]

_TRUE = ("true", "1")
_FALSE = ("false", "0")


@dataclass(frozen=True)
class Flag:
    """One flag of another tool.

    Args:
        name: without dashes, as its tool writes it.
        takes: what its value is, such as ``N`` or ``FILE``; empty for a switch.
        here: what it means here; where it is refused, why.
        aliases: other names of it.
        versions: first and last major version of the tool that knows it, such as ``8-11``; empty for Enginery's own.
        mend: what to do instead; a flag with a mend is refused.
        repeats: whether it may be given several times.
        sets: the field that it sets as it stands, such as ``option:optimization_level``; empty where it takes more.
    """

    name: str
    takes: str
    here: str
    aliases: tuple[str, ...] = ()
    versions: str = "8-11"
    mend: str = ""
    repeats: bool = False
    sets: str = ""

    @property
    def spelt(self) -> str:
        """How it is written, such as ``--workspace=N``."""
        dashes = "--" if len(self.name) > 1 else "-"
        return f"{dashes}{self.name}={self.takes}" if self.takes else f"{dashes}{self.name}"


@dataclass(frozen=True)
class Given:
    """A flag as it was given: its value is a text; ``true`` or ``false`` for a switch."""

    flag: Flag
    value: str

    @property
    def on(self) -> bool:
        """Whether a switch is switched on."""
        return self.value == "true"


@dataclass(frozen=True)
class Tool:
    """Another tool: its name, its flags by the heading that its help lists them under, and what it takes besides.

    Args:
        words: what its plain words are, such as ``model.onnx``; empty where it takes none.
    """

    name: str
    groups: tuple[tuple[str, tuple[Flag, ...]], ...]
    words: str = ""

    @property
    def flags(self) -> tuple[Flag, ...]:
        """All of its flags."""
        return tuple(flag for _, flags in self.groups for flag in flags)

    def help(self, head: str) -> str:
        """Return the text of ``--help``: every flag, and what it means here."""
        lines = [head]
        for title, flags in self.groups:
            lines += ["", f"{title}:"]
            for flag in flags:
                also = "".join(f", --{alias}" for alias in flag.aliases)
                refused = f"refused: {flag.here}; {flag.mend}" if flag.mend else flag.here
                lines += [f"  {flag.spelt}{also}", f"      {refused}"]
        return "\n".join(lines)


def read_flags(tool: Tool, words: Sequence[str]) -> tuple[tuple[Given, ...], tuple[str, ...]]:
    """Read a line of another tool's flags.

    Args:
        tool: whose they are.
        words: as the shell gives them.

    Returns:
        The flags in their order, and the plain words.

    Raises:
        UnknownNameError: it has no such flag; the nearest is suggested.
        UsageError: a flag is given twice, has no value, or is refused: then the mend says what to do instead.

    Example:
        >>> tool = Tool("t", (("All", (Flag("onnx", "FILE", "the model"), Flag("fp16", "", "half"))),))
        >>> [(one.flag.name, one.value) for one in read_flags(tool, ["-onnx", "m.onnx", "--fp16"])[0]]
        [('onnx', 'm.onnx'), ('fp16', 'true')]
    """
    known = {name: flag for flag in tool.flags for name in (flag.name, *flag.aliases)}
    given: list[Given] = []
    plain: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            plain.append(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        flag = _find(tool, known, name, word)
        if flag.takes and not equals:
            value = _next_value(flag, rest, known)
        found = Given(flag, value if flag.takes else _switch(flag, value, given=bool(equals)))
        _refuse(tool, found, given)
        given.append(found)
    if plain and not tool.words:
        mend = f"name the model as {tool.flags[0].spelt}, and put quotes around a value that has spaces"
        raise UsageError(f"{tool.name} takes no plain words, and here is {plain[0]!r}", mend=mend)
    return tuple(given), tuple(plain)


def _find(tool: Tool, known: dict[str, Flag], name: str, word: str) -> Flag:
    if name in known:
        return known[name]
    by_case = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), by_case, n=1, cutoff=0.5)
    listed = f"`enginery {tool.name} --help` lists them"
    mend = f"did you mean {known[by_case[near[0]]].spelt}? ({listed})" if near else listed
    raise UnknownNameError(f"{tool.name} has no flag {word.partition('=')[0]}", mend=mend)


def _next_value(flag: Flag, rest: list[str], known: dict[str, Flag]) -> str:
    """Take the value of a flag from the next word; one that is a flag itself is none."""
    if not rest or (rest[0].startswith("-") and rest[0].lstrip("-").partition("=")[0] in known):
        raise UsageError(f"--{flag.name} has no value", mend=f"write it as {flag.spelt}")
    return rest.pop(0)


def _switch(flag: Flag, value: str, *, given: bool) -> str:
    if not given or value.lower() in _TRUE:
        return "true"
    if value.lower() in _FALSE:
        return "false"
    raise UsageError(f"--{flag.name} is {value!r}", mend=f"it is a switch: write {flag.spelt} alone, or leave it out")


def _refuse(tool: Tool, found: Given, before: Iterable[Given]) -> None:
    flag = found.flag
    if flag.mend and found.value != "false":
        raise UsageError(f"{flag.spelt.partition('=')[0]} of {tool.name}: {flag.here}", mend=flag.mend)
    if not flag.repeats and any(one.flag is flag for one in before):
        raise UsageError(f"{flag.spelt.partition('=')[0]} is given twice", mend="give it once")


def read_number(given: Given, low: float, *, whole: bool = True) -> float:
    """Read the value of a flag as a number of at least `low`.

    Raises:
        UsageError: it is no such number.

    Example:
        >>> read_number(Given(Flag("iterations", "N", ""), "20"), 0)
        20
    """
    try:
        number = int(given.value) if whole else float(given.value)
    except ValueError:
        number = float("nan")
    if not low <= number < float("inf"):
        kind = "whole number" if whole else "number"
        spelt = given.flag.spelt.partition("=")[0]
        raise UsageError(f"{spelt} is {given.value!r}", mend=f"give a {kind}, {low:g} or more")
    return number


class FlagCommand(click.RichCommand):
    """A command whose words are another tool's: they reach the function as they stand, in ``words``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Leave every word to `read_flags`, those that start with a dash too."""
        ctx.params = {"words": tuple(args)}
        ctx.args = []
        return []
