"""Which GPUs an engine is for: those that were asked for by compute capability, or the one it is built on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from enginery.backends.tensorrt.options import listed
from enginery.backends.tensorrt.versions import Api, capability_names, supports
from enginery.backends.tensorrt.versions import set_capabilities as tell_capabilities
from enginery.errors import FeatureError, PrecisionError, UnknownNameError
from enginery.machine import compute_capability, describe_machine
from enginery.records import MachineRecord, TargetRecord
from enginery.spec import Option

__all__ = ["asked_capabilities", "check_capabilities", "opens_here", "set_capabilities", "target_of"]


def asked_capabilities(api: Api, options: Mapping[str, Option]) -> tuple[str, ...]:
    """Return the compute capabilities that an engine shall run on; empty where it is the library's own choice.

    Raises:
        FeatureError: the library builds for the GPU that is here, and for no other by name.
        UnknownNameError: the library does not know a compute capability.
    """
    asked = tuple(dict.fromkeys(listed(options["compute_capabilities"])))
    if not asked:
        return ()
    if not api.is_rtx:
        raise FeatureError(
            f"compute_capabilities={','.join(asked)}: {api.library.label} builds for the GPU that it builds on",
            mend="leave it out; hardware_compatibility=ampere_plus gives an engine for later GPUs as well",
        )
    known = capability_names(api)
    for capability in asked:
        if capability not in known:
            raise UnknownNameError(
                f"{api.library.label} {api.version} builds for no compute capability {capability!r}",
                mend=f"it builds for {', '.join(sorted(known, key=float))}; for others build with --backend tensorrt",
            )
    return asked


def check_capabilities(precision: str, capabilities: tuple[str, ...]) -> None:
    """Refuse a precision that one of the compute capabilities has no instructions for.

    Raises:
        PrecisionError: naming those that lack it.
    """
    lacking = [capability for capability in capabilities if not supports(capability, precision)]
    if lacking:
        having = [capability for capability in capabilities if capability not in lacking]
        raise PrecisionError(
            f"compute capability {', '.join(lacking)} cannot compute in {precision}, and the engine shall run on "
            f"{', '.join(capabilities)}",
            mend=f"ask for --option compute_capabilities={','.join(having)}" if having else "ask for fp16 or fp32",
        )


def set_capabilities(api: Api, config: Any, capabilities: tuple[str, ...]) -> None:
    """Tell the builder which GPUs the engine shall run on."""
    names = capability_names(api) if capabilities else {}
    if capabilities and not tell_capabilities(api, config, [names[capability] for capability in capabilities]):
        raise FeatureError(
            f"{api.library.label} {api.version} refuses compute_capabilities={','.join(capabilities)} here",
            mend="name each once, and build for the GPU that is here on a machine that has one",
        )


def target_of(
    api: Api, capabilities: tuple[str, ...], device: int = 0, machine: MachineRecord | None = None
) -> TargetRecord:
    """Say what an engine needs to be opened.

    Args:
        api: the library that built it.
        capabilities: those asked for; empty for the GPU that is here.
        device: number of that GPU.
        machine: what is here, where it is not to be looked up.
    """
    machine = machine or describe_machine()
    own = compute_capability(machine, device)
    if api.is_rtx:
        return TargetRecord(api.library.module, api.version, compute_capabilities=capabilities)
    name = machine.gpus[device].partition(",")[0] if device < len(machine.gpus) else ""
    return TargetRecord(api.library.module, api.version, name, (own,) if own else (), machine.driver or "")


def opens_here(api: Api, capabilities: tuple[str, ...], device: int = 0) -> bool:
    """Say whether an engine that was just built can be opened on this machine, to read its layers."""
    own = compute_capability(describe_machine(), device)
    return bool(own) and (not api.is_rtx or not capabilities or own in capabilities)
