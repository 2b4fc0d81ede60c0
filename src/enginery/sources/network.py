"""A network built by hand with a backend's own API: a source without a graph, compared with one that has one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, overload

from enginery.backends.base import Design
from enginery.benchmark.base import Timer
from enginery.errors import ExportError, SourceError, UsageError
from enginery.sources import open_source
from enginery.sources.base import Array, Evaluate, Exported, Source
from enginery.sources.named_weights import NamedWeights, open_weights
from enginery.sources.network_files import BuildFunction, NetworkDefinition, hash_of, name_of, save_definition
from enginery.spec import Shape, SourceSpec

__all__ = ["Network", "NetworkSource", "network", "open", "recognises"]

OPTIONS = frozenset({"weights"})


@dataclass(frozen=True)
class Network:
    """A function that builds a network with a backend's own API, and what belongs to it; made by `network`.

    Args:
        function: takes the API and the weights by name; what it returns is the backend's affair.
        backend: name of the backend whose API it uses.
        weights: anything that `enginery.sources.named_weights.open_weights` takes; read when the network is built.
        reference: any source that computes the same, under the same names of inputs and outputs.
    """

    function: BuildFunction
    backend: str
    weights: Any = None
    reference: Any = None

    def __post_init__(self) -> None:
        given: object = self.function
        if not callable(given):
            message = f"a network is a function of the API and the weights, not a {type(given).__qualname__}"
            raise UsageError(message, mend='write @enginery.network(backend="openvino") above the function')

    def __str__(self) -> str:
        told = [f"for {self.backend}"]
        told += [f"weights from {_shown(self.weights)}"] if self.weights is not None else []
        told += [f"compared with {_shown(self.reference)}"] if self.reference is not None else []
        return f"network {name_of(self.function)} ({', '.join(told)})"


@overload
def network(function: BuildFunction, *, backend: str, weights: Any = None, reference: Any = None) -> Network: ...


@overload
def network(*, backend: str, weights: Any = None, reference: Any = None) -> Callable[[BuildFunction], Network]: ...


def network(
    function: BuildFunction | None = None, *, backend: str, weights: Any = None, reference: Any = None
) -> Network | Callable[[BuildFunction], Network]:
    """Make a source of a function that builds a network, layer by layer, with a backend's own API.

    What it returns is built, benchmarked and optimised like any other source; it cannot be exported, since it has no
    ONNX form. Called without a function, it is a decorator. Nothing is imported or read before the network is built.

    Args:
        function: takes two arguments: the API (for OpenVINO its newest module of operators) and the weights, a
            mapping of names to numpy arrays. For OpenVINO it returns an `openvino.Model`; for what other backends
            want, see `enginery.backends.base.NetworkBuilder`. Where it is built in a worker process, which is the
            rule, it must stand at the top level of a file.
        backend: name of the backend whose API it uses.
        weights: a dictionary of arrays, a model with a ``state_dict()``, or the path of an ``.onnx`` (its
            initializers), ``.npz``, ``.safetensors`` or ``.pt`` (a state dict) file, mapped where the format allows.
            A relative path is looked for in the current folder.
        reference: any source (an ONNX file, a module, ...) that computes the same; its inputs and outputs have the
            network's names. `optimize` needs one.

    Raises:
        UsageError: `function` cannot be called.

    Example:
        >>> import enginery, numpy as np
        >>> @enginery.network(backend="openvino", weights={"bias": np.ones(4, np.float32)})
        ... def shifted(api, weights):
        ...     import openvino
        ...     x = api.parameter([-1, 4], dtype=np.float32, name="x")
        ...     return openvino.Model([api.add(x, weights["bias"], name="y")], [x], "shifted")
        >>> print(shifted)
        network shifted (for openvino, weights from a dict)
    """
    if function is None:
        return functools.partial(network, backend=backend, weights=weights, reference=reference)
    return Network(function, backend, weights, reference)


def recognises(thing: Any) -> bool:
    """Say whether it is what `network` made."""
    return isinstance(thing, Network)


def open(thing: Network, spec: SourceSpec) -> NetworkSource:  # noqa: A001
    """Open a network; its function is not called, and its weights are not read, before they are needed.

    Args:
        thing: what `network` made.
        spec: its weights stand over the network's; examples and example inputs are for the reference.
    """
    return NetworkSource(replace(thing, weights=spec.weights) if spec.weights else thing, spec)


class NetworkSource:
    """A hand-built network as a source: it has a design to be built, and a reference to be compared with."""

    kind = "network"
    framework = None

    def __init__(self, thing: Network, spec: SourceSpec) -> None:
        self._network = thing
        self._spec = SourceSpec(examples=spec.examples, example_inputs=spec.example_inputs)
        self._opened: Source | None = None

    @property
    def backend(self) -> str:
        """Name of the one backend that builds it."""
        return self._network.backend

    @property
    def label(self) -> str:
        """``network NAME``."""
        return f"network {name_of(self._network.function)}"

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of the function's file and the weights."""
        return hash_of(self._network.function, self.backend, self._weights)

    @functools.cached_property
    def _weights(self) -> NamedWeights:
        return open_weights(self._network.weights)

    def design(self, folder: Path, *, in_process: bool) -> Design:
        """Return what a build takes: files in `folder`, or what is in memory for a build in this process.

        Raises:
            UsageError: another process could not import the function.
            SourceError: the weights cannot be read.
        """
        if in_process:
            content = NetworkDefinition(self._network.function, self.backend, self._weights)
            return Design(folder, self.label, self.sha256, backend=self.backend, content=content)
        path = save_definition(self._network.function, self.backend, self._weights, folder)
        return Design(path, self.label, self.sha256, backend=self.backend)

    def reference(self) -> Source:
        """Return the source that it is compared with, which is closed with this one unless it came open.

        Raises:
            UsageError: none was given.
            SourceError: it cannot be opened.
        """
        if self._network.reference is None:
            mend = f'give one: @enginery.network(backend="{self.backend}", reference="model.onnx")'
            raise UsageError(f"the {self.label} has no reference to be compared with", mend=mend)
        if self._opened is None:
            self._opened = open_source(self._network.reference, spec=self._spec)
        return self._opened

    def export(
        self, *, shapes: Mapping[str, Shape], opset: int | None = None, evaluate: Evaluate | None = None
    ) -> Exported:
        """Refuse: it is built with a backend's own API, and has no ONNX form.

        Raises:
            ExportError: always.
        """
        del shapes, opset, evaluate
        mend = f"build it with its own backend, {self.backend}: `enginery build`, or export its reference"
        raise ExportError(f"the {self.label} is built by hand for {self.backend} and has no ONNX form", mend=mend)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Refuse: it runs only once it is built.

        Raises:
            SourceError: always.
        """
        del feeds
        self._refuse_to_run()

    def timer(self, feeds: Mapping[str, Array]) -> Timer:
        """Refuse, as `run` does.

        Raises:
            SourceError: always.
        """
        del feeds
        self._refuse_to_run()

    def close(self) -> None:
        """Close the reference, where it was opened here."""
        if self._opened is not None and self._opened is not self._network.reference:
            self._opened.close()
        self._opened = None

    def example_feeds(self) -> dict[str, Array] | None:
        """Return the reference's example inputs."""
        return self.reference().example_feeds() if self._network.reference is not None else None

    def _refuse_to_run(self) -> NoReturn:
        raise SourceError(f"the {self.label} runs only as an engine", mend="build it, and run the engine")


def _shown(thing: Any) -> str:
    return Path(thing).name if isinstance(thing, (str, Path)) else f"a {type(thing).__qualname__}"
