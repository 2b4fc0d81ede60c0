"""What a graph's weights lose in a narrower type, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enginery.graph.precision.convert import Loss, loss_of

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Losses"]


class Losses:
    """Collects what each weight loses."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], Loss] = {}

    def note(self, tensor: ir.TensorProtocol, dtype: ir.DataType, name: str) -> None:
        """Look at a tensor that is about to be converted."""
        loss = loss_of(tensor, dtype)
        if loss != Loss():
            self.found[name, dtype.name.lower()] = loss

    def notes(self) -> tuple[str, ...]:
        """Say what a user should know, a line for each kind of loss and type."""
        said = []
        for dtype in sorted({dtype for _, dtype in self.found}):
            these = {name: loss for (name, kind), loss in self.found.items() if kind == dtype}
            if beyond := {name: loss for name, loss in these.items() if loss.clamped}:
                worst = max(beyond, key=lambda name: beyond[name].largest)
                said.append(
                    f"{sum(loss.clamped for loss in beyond.values()):,} values of {_listed(beyond)} are beyond "
                    f"{dtype}'s range, up to {beyond[worst].largest:.3g} in {worst!r}: "
                    "they became its largest finite value"
                )
            if gone := {name: loss for name, loss in these.items() if loss.vanished}:
                count = sum(loss.vanished for loss in gone.values())
                said.append(f"{count:,} values of {_listed(gone)} are too small for {dtype}: they became 0")
            if small := {name: loss for name, loss in these.items() if loss.subnormal}:
                count = sum(loss.subnormal for loss in small.values())
                said.append(f"{count:,} values of {_listed(small)} are subnormal in {dtype}: they keep few digits")
        return tuple(said)


def _listed(losses: dict[str, Loss]) -> str:
    names = [repr(name) for name in losses]
    return names[0] if len(names) == 1 else f"{len(names)} weights ({names[0]}, ...)"
