"""A PyTorch module called with arrays by name: the inputs bound, the outputs flattened and named.

PyTorch itself is imported by `enginery.sources.torch_module` alone, and handed in.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from enginery.errors import InputNameError, SourceError
from enginery.sources.base import Array
from enginery.sources.blame import likely_line
from enginery.sources.pytorch.binding import bind
from enginery.sources.pytorch.fixed_sizes import FindSize, Step, recorded_steps
from enginery.sources.pytorch.nesting import fill, name_leaves
from enginery.streams import stdout_to_stderr

__all__ = ["CalledByName", "fixing_line", "forward_signature"]

_NEEDS_EXAMPLES = 'give example inputs: example_inputs=..., or --example "NAME:float32[1,3,224,224]" for each input'


def forward_signature(module: Any) -> inspect.Signature:
    """Return the signature of a module's ``forward``; TorchScript has it as a schema."""
    schema = getattr(module.forward, "schema", None)
    if schema is None:
        return inspect.signature(module.forward)
    parameters = [
        inspect.Parameter(
            re.sub(r"\W", "_", argument.name),
            inspect.Parameter.KEYWORD_ONLY if argument.kwarg_only else inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=argument.default_value if argument.has_default_value() else inspect.Parameter.empty,
        )
        for argument in schema.arguments[1:]
    ]
    return inspect.Signature(parameters)


class CalledByName:
    """Calls a module in evaluation mode, without gradients, and puts its training mode back each time.

    Args:
        torch: the library.
        module: the caller's; it is not changed.
        label: what messages call it.
        example_inputs: of one call; None where they are not known, and then it cannot be called.
        signature: of its call, where `forward` itself does not tell.
        convert_half: whether a module in half precision is copied to float32.
    """

    def __init__(
        self,
        torch: ModuleType,
        module: Any,
        label: str,
        example_inputs: Any,
        *,
        signature: inspect.Signature | None = None,
        convert_half: bool = True,
    ) -> None:
        self._torch = torch
        self._label = label
        self.scripted = isinstance(module, torch.jit.ScriptModule)
        half = self._half_dtypes(module)
        self.half = half if convert_half else ()
        self.kept_half = () if convert_half else half
        self._module = self._in_full_precision(module) if self.half else module
        self._call: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.example: dict[str, Array] = {}
        if example_inputs is not None:
            self._call, leaves = bind(signature or forward_signature(module), example_inputs, self._is_array)
            self.example = {name: self.numpy(value) for name, value in leaves}

    def require_example(self) -> dict[str, Array]:
        """Return the example inputs by name.

        Raises:
            SourceError: none were given.
        """
        if self._call is None:
            raise SourceError(f"{self._label} has no example inputs", mend=_NEEDS_EXAMPLES)
        return self.example

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute once; the arrays returned are the caller's."""
        tensors = self.tensors(feeds)
        with self.evaluating(), stdout_to_stderr():
            outputs = self._forward(tensors)
        return {name: np.array(self.numpy(value)) for name, value in outputs}

    def steps(self, feeds: Mapping[str, Array]) -> list[Step]:
        """Return the operators that one call runs, as far as it comes."""
        args, kwargs = self._arguments(self.tensors(feeds))
        with self.evaluating(), stdout_to_stderr():
            return recorded_steps(self._torch, lambda: self._module(*args, **kwargs))

    def timer(self, feeds: Mapping[str, Array]) -> Callable[[], None]:
        """Return a function that calls the module once; inputs are tensors already, on its device."""
        args, kwargs = self._arguments(self.tensors(feeds))
        module, evaluating, cuda = self._module, self.evaluating, self._torch.cuda
        device, training = self._device(), self._training()

        def call() -> None:
            with evaluating(training):
                module(*args, **kwargs)
                if device.type == "cuda":
                    cuda.synchronize(device)

        return call

    def tensors(self, feeds: Mapping[str, Array]) -> list[Any]:
        """Return a tensor for each input, in the order of the example inputs."""
        names = list(self.require_example())
        if set(feeds) != set(names):
            wrong = ", ".join(repr(name) for name in sorted(set(feeds) ^ set(names)))
            raise InputNameError(
                f"{self._label} is given other inputs than it takes: {wrong}",
                mend=f"its inputs are {', '.join(names) or 'none'}",
            )
        device = self._device()
        # A copy: torch warns of arrays that cannot be written to, and a module may write to its inputs.
        return [self._torch.from_numpy(np.array(feeds[name], order="C")).to(device) for name in names]

    def _arguments(self, tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, kwargs = fill(self._call, self._is_array, iter(tensors))
        return args, kwargs

    def _forward(self, tensors: Sequence[Any]) -> list[tuple[str, Any]]:
        """Call the module and name the tensors that come back."""
        args, kwargs = self._arguments(tensors)
        try:
            outputs = self._module(*args, **kwargs)
        except Exception as error:
            line = likely_line(error)
            raise SourceError(
                f"{self._label} raised {type(error).__name__}: {error}" + (f" at {line}" if line else ""),
                mend=f"check the inputs: {', '.join(f'{t.dtype} {tuple(t.shape)}' for t in tensors)}",
            ) from error
        named = name_leaves(outputs, self._is_array, single="output")
        # In a graph, an input and an output cannot have one name.
        return [(f"{name}_output" if name in self.example else name, value) for name, value in named]

    def flat(self) -> Any:
        """Wrap the module so that it takes and returns tuples of tensors."""
        called = self

        class Flat(self._torch.nn.Module):  # type: ignore[name-defined, misc]
            def __init__(self) -> None:
                super().__init__()
                self.module = called._module
                self.training = False

            def forward(self, *tensors: Any) -> tuple[Any, ...]:
                args, kwargs = called._arguments(tensors)
                outputs = name_leaves(self.module(*args, **kwargs), called._is_array, single="output")
                return tuple(value for _, value in outputs)

        return Flat()

    @contextlib.contextmanager
    def evaluating(self, training: list[Any] | None = None) -> Iterator[None]:
        """Compute without gradients, every submodule in evaluation mode; put their modes back at the end."""
        training = self._training() if training is None else training
        for module in training:
            module.training = False
        try:
            with self._torch.no_grad():
                yield
        finally:
            for module in training:
                module.training = True

    def _training(self) -> list[Any]:
        return [module for module in self._module.modules() if module.training]

    def _half_dtypes(self, module: Any) -> tuple[str, ...]:
        half = (self._torch.float16, self._torch.bfloat16)
        tensors = (*module.parameters(), *module.buffers())
        return tuple(sorted({str(t.dtype).removeprefix("torch.") for t in tensors if t.dtype in half}))

    def _in_full_precision(self, module: Any) -> Any:
        """Return a float32 copy of a module in half precision: precision is chosen later, on the graph."""
        half = (self._torch.float16, self._torch.bfloat16)
        return copy.deepcopy(module)._apply(  # noqa: SLF001 - float() would turn float64 too
            lambda tensor: tensor.float() if tensor.dtype in half else tensor
        )

    def _is_array(self, value: Any) -> bool:
        return isinstance(value, (self._torch.Tensor, np.ndarray))

    def numpy(self, value: Any) -> Array:
        """Return a tensor as numpy's array, in float32 where numpy or this copy of the module has no half precision."""
        if isinstance(value, np.ndarray):
            return value.astype(np.float32) if value.dtype == np.float16 and self.half else value
        value = value.detach().cpu()
        if value.dtype == self._torch.bfloat16 or (value.dtype == self._torch.float16 and self.half):
            value = value.float()
        array: Array = value.resolve_conj().resolve_neg().numpy()
        return array

    def _device(self) -> Any:
        tensor = next(self._module.parameters(), next(self._module.buffers(), None))
        return self._torch.device("cpu") if tensor is None else tensor.device


def fixing_line(called: CalledByName, one: Mapping[str, Array], other: Mapping[str, Array], *finds: FindSize) -> str:
    """Call a module at two sizes once more, and compare its operators.

    Args:
        called: the module.
        one: inputs of a call that went well.
        other: inputs of other sizes.
        finds: what looks at the operators, the strongest evidence first.

    Returns:
        The line that fixes a size, as far as can be told; an empty text where nothing tells.
    """
    varying = [
        (name, axis)
        for name, array in one.items()
        for axis, (a, b) in enumerate(zip(array.shape, other[name].shape, strict=True))
        if a != b
    ]
    pairs = {(one[name].shape[axis], other[name].shape[axis]) for name, axis in varying}
    written = {called.example[name].shape[axis] for name, axis in varying}
    steps = called.steps(one), called.steps(other)
    return next(filter(None, (find(*steps, pairs, written) for find in finds)), "")
