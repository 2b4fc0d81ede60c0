"""Example inputs as a user gives them, bound to the parameters of a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from enginery.errors import SourceError
from enginery.sources.pytorch.nesting import name_leaves

__all__ = ["bind"]

Call = tuple[tuple[Any, ...], dict[str, Any]]
_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def bind(
    signature: inspect.Signature, inputs: Any, is_leaf: Callable[[Any], bool]
) -> tuple[Call, list[tuple[str, Any]]]:
    """Bind example inputs to a signature, and name every array in them.

    A tuple or list holds the arguments in order; a dict holds them by name, where a name that is no parameter stands
    for the next one and names the input. A function of one parameter that is given several such names gets the dict.

    Args:
        signature: of the function that will be called.
        inputs: an array, a tuple or list, or a dict.
        is_leaf: whether a value is an array.

    Returns:
        The positional and keyword arguments, and the named arrays in their order.

    Raises:
        SourceError: the inputs do not fit the signature.
    """
    aliases: dict[str, str] = {}
    if isinstance(inputs, Mapping):
        args, kwargs, aliases = _by_name(signature, {str(name): value for name, value in inputs.items()})
    else:
        args, kwargs = (tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)), {}
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise SourceError(
            f"the example inputs do not fit forward{signature}: {error}",
            mend="give an example for each parameter that has no default",
        ) from None
    leaves = []
    for name, value in _arguments(bound):
        # A dict that is the only argument names its parts itself.
        stem = "" if len(bound.arguments) == 1 and isinstance(value, Mapping) else aliases.get(name, name)
        tree = {stem: value} if stem else value
        leaves += name_leaves(tree, is_leaf, single=stem or name, constants=True)
    return (bound.args, bound.kwargs), leaves


def _arguments(bound: inspect.BoundArguments) -> list[tuple[str, Any]]:
    """Return the arguments one by one, in the order in which they are passed."""
    found: list[tuple[str, Any]] = []
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            found += [(f"{name}_{place}", item) for place, item in enumerate(value)]
        elif kind is inspect.Parameter.VAR_KEYWORD:
            found += value.items()
        else:
            found.append((name, value))
    return found


def _by_name(
    signature: inspect.Signature, inputs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, str]]:
    parameters = signature.parameters.values()
    takes_any_name = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    unknown = [name for name in inputs if name not in signature.parameters]
    if not unknown or takes_any_name:
        return (), inputs, {}
    takes_any_number = any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters)
    if takes_any_number and len(unknown) == len(inputs):
        places = [p.name for p in parameters if p.kind in _BY_PLACE]
        rest = next(p.name for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL)
        places += [f"{rest}_{place}" for place in range(len(inputs) - len(places))]
        return tuple(inputs.values()), {}, dict(zip(places, inputs, strict=False))
    free = [p.name for p in parameters if p.kind in _BY_PLACE and p.name not in inputs]
    if len(signature.parameters) == 1 and len(unknown) == len(inputs) > 1:
        return (inputs,), {}, {}
    if len(unknown) > len(free):
        raise SourceError(
            f"there are examples for {', '.join(map(repr, unknown))}, and forward{signature} has no such parameters",
            mend="name the inputs as forward does",
        )
    aliases = dict(zip(free, unknown, strict=False))
    arguments = {name: inputs[aliases.get(name, name)] for name in signature.parameters if name in (*aliases, *inputs)}
    return (), arguments, aliases
