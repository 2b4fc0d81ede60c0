"""What a build was asked for, checked: options against a backend's rules, the precision against its list."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from enginery.errors import PrecisionError, UnknownNameError, UsageError
from enginery.spec import PRECISIONS, BuildSpec, Option

__all__ = ["OptionRule", "check_options", "check_plan_offered", "check_precision_offered", "read_allowed"]

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class OptionRule:
    """What one option of a backend may be; its type is its default's.

    Args:
        default: the value where none is given.
        choices: the words a text may be; empty where any is allowed.
        low: the smallest whole number.
        high: the largest; more than a C int no library takes.
    """

    default: Option
    choices: tuple[str, ...] = ()
    low: int = 0
    high: int = 2**31 - 1

    def read(self, name: str, value: Option) -> Option:
        """Return `value` as this option's type.

        Raises:
            UnknownNameError: a word that is not among the choices.
            UsageError: not a whole number, one out of range, or neither true nor false.
        """
        if isinstance(self.default, bool):
            word = str(value).lower()
            if word not in _WORDS:
                raise UsageError(f"option {name!r} is {value!r}", mend="give true or false")
            return _WORDS[word]
        if isinstance(self.default, int):
            return self._read_number(name, value)
        if self.choices and str(value).lower() not in self.choices:
            raise UnknownNameError.from_choices(f"value of option {name!r}:", str(value), self.choices)
        return str(value).lower() if self.choices else str(value)

    def _read_number(self, name: str, value: Option) -> int:
        try:
            number = int(str(value))
        except ValueError as error:
            raise UsageError(f"option {name!r} is {value!r}", mend="give a whole number") from error
        if number < self.low:
            raise UsageError(f"option {name!r} is {number}", mend=f"give {self.low} or more")
        if number > self.high:
            raise UsageError(f"option {name!r} is {number}", mend=f"give {self.low} to {self.high}")
        return number


def check_options(rules: Mapping[str, OptionRule], *given: Mapping[str, Option]) -> dict[str, Option]:
    """Return a value for every option: the default, or what the last of `given` that names it says.

    Raises:
        UnknownNameError: an option or a word that the backend does not have; the nearest is suggested.
        UsageError: a value of the wrong kind.

    Example:
        >>> check_options({"threads": OptionRule(2, low=1)}, {"threads": "4"})
        {'threads': 4}
    """
    values = {name: rule.default for name, rule in rules.items()}
    for options in given:
        for name, value in options.items():
            if name not in rules:
                raise UnknownNameError.from_choices("option", name, rules)
            values[name] = rules[name].read(name, value)
    return values


def read_allowed(text: Option) -> tuple[str, ...]:
    """Read the option ``allow_precision``: precisions that may stand in for those asked for, joined by commas.

    Raises:
        UnknownNameError: one is none.

    Example:
        >>> read_allowed("fp32, tf32")
        ('fp32', 'tf32')
    """
    words = tuple(word.strip() for word in str(text).split(",") if word.strip())
    for word in words:
        if word not in PRECISIONS:
            raise UnknownNameError.from_choices("precision of option 'allow_precision':", word, PRECISIONS)
    return words


def check_precision_offered(
    backend: str, precision: str, offered: Iterable[str], lacks: Mapping[str, str] | None = None
) -> None:
    """Raise `PrecisionError` unless `precision` is among those that the backend offers on this machine.

    Args:
        backend: its name.
        precision: what was asked for.
        offered: those that it offers.
        lacks: why it has not the others, as `enginery.backends.base.Capabilities.lacks` says.
    """
    if precision not in (known := sorted(offered)):
        why = (lacks or {}).get(precision, "")
        raise PrecisionError(
            f"backend {backend!r} cannot compute in {precision} on this machine{f': {why}' if why else ''}",
            mend=f"it offers: {', '.join(known)}",
        )


def check_plan_offered(
    backend: str, spec: BuildSpec, offered: Collection[str], lacks: Mapping[str, str] | None = None
) -> None:
    """Raise `PrecisionError` unless the backend offers every precision that is asked for, the plan's among them."""
    for precision in (spec.precision, *(spec.plan.words if spec.plan is not None else ())):
        check_precision_offered(backend, precision, offered, lacks)
