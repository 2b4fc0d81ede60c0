"""PyTorch's side: exports a model with Enginery, computes what is right, and runs the baselines.

    python -m benchmarks.h200.torch_side

The baselines are what a PyTorch user would come to, in half precision, channels last for convolutions: ``eager``, with
PyTorch's own kernels in one CUDA graph; ``compiled``, as `torch.compile` leaves it; and ``captured``, the compiled
module in one CUDA graph; a ViT without the mask that masks nothing. Each is timed on the device, a number of calls in
a row.
"""

from __future__ import annotations

import copy
import functools
import gc
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.h200.answering import answer
from benchmarks.h200.models import MODELS, Net, feeds_of, leave_out_masks, make

State = dict[str, Any]
_WARM = 3


def export(state: State, *, model: str, output: str, largest: int, tiny: bool) -> dict[str, Any]:
    """Export with a batch of 1 to `largest`, by `enginery.export`."""
    import enginery  # noqa: PLC0415 - the baselines need none of it

    module, example = _net(state, model, tiny=tiny)
    shapes = {
        name: enginery.Shape.parse(f"batch:1..{largest}" + "".join(f"x{size}" for size in value.shape[1:]))
        for name, value in example.items()
    }
    record = enginery.export(module, Path(output), example_inputs=_pair(example), shapes=shapes)
    return {
        "exporter": record.exporter, "opset": record.opset, "nodes": record.nodes, "seconds": record.seconds,
        "attempts": record.attempts, "shapes": {name: list(value.shape[1:]) for name, value in example.items()},
    }  # fmt: skip


def reference(state: State, *, model: str, folder: str, batches: list[int], tiny: bool) -> dict[str, Any]:
    """Write inputs and outputs for each batch; the outputs are computed in float64, and told as float32.

    Returns:
        For each batch, the relative L2 of float32 and of float16 in PyTorch against float64, for comparison, and
        that of one row's output against another's: agreement proves little where the outputs hardly vary.
    """
    module, example = _net(state, model, tiny=tiny)
    found = {}
    device = _device()
    for batch in batches:
        feeds = feeds_of(example, batch, seed=batch)
        # Copies: in place, half precision would round the weights that the next batch is computed with.
        right = _run(copy.deepcopy(module).double(), feeds, device, torch.float64)
        floats = _run(copy.deepcopy(module).float(), feeds, device, torch.float32)
        halves = _run(copy.deepcopy(module).half(), feeds, device, torch.float16) if device == "cuda" else None
        Path(folder).mkdir(parents=True, exist_ok=True)
        inputs = {f"in_{name}": value.numpy() for name, value in feeds.items()}
        part = Path(folder) / f"{batch}.part.npz"
        np.savez(part, **inputs, out=right.astype(np.float32))
        part.replace(Path(folder) / f"{batch}.npz")
        found[str(batch)] = {
            "pytorch_fp32": _distance(floats, right),
            "pytorch_fp16": None if halves is None else _distance(halves, right),
            "varies": _distance(right[:1], right[1:2]) if batch > 1 else None,
        }
    return found


def prepare(state: State, *, model: str, batch: int, tiny: bool, compiled: bool) -> dict[str, Any]:
    """Make one call in half precision, compiled or not, also captured; kept by model, batch and kind for `turn`."""
    leave_out_masks()
    module, example = _net(state, model, tiny=tiny)
    feeds = {name: value.to(_device()) for name, value in feeds_of(example, batch, seed=batch).items()}
    module, feeds = _halved(module.to(_device()), feeds, channels_last=MODELS[model].convolutional)
    begin = time.perf_counter()
    if compiled:
        torch._dynamo.reset()  # noqa: SLF001 - the documented way to forget what was compiled before
        module = torch.compile(module, dynamic=False)  # type: ignore[assignment]
    plain = functools.partial(module, **feeds)
    with torch.no_grad():
        replay = _captured(module, feeds) if _device() == "cuda" else plain
        for call in (replay, plain):
            for _ in range(_WARM):
                call()
    kinds = {"compiled": plain, "captured": replay} if compiled else {"eager": replay}
    state.update({_key(model, batch, kind): call for kind, call in kinds.items()})
    return {"seconds": time.perf_counter() - begin}


def turn(state: State, *, model: str, batch: int, kind: str, calls: int) -> float:
    """Return the time of one call on the device, in milliseconds: the mean of `calls` in a row."""
    replay = state[_key(model, batch, kind)]
    with torch.no_grad():
        if _device() == "cpu":
            begin = time.perf_counter()
            for _ in range(calls):
                replay()
            return (time.perf_counter() - begin) * 1e3 / calls
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        replay()
        start.record()
        for _ in range(calls):
            replay()
        end.record()
        end.synchronize()
    return float(start.elapsed_time(end)) / calls


def plans(state: State, *, folder: str) -> list[str]:
    """Write graphs with a plan each, and in ``cases.json`` what their computing nodes shall compute in."""
    del state
    from benchmarks.models.plan_cases import cases, write_cases  # noqa: PLC0415 - the baselines need none of it

    return write_cases(cases(large=True), Path(folder))


def versions(state: State) -> dict[str, Any]:
    """Say what this interpreter holds."""
    del state
    import sys  # noqa: PLC0415 - only here

    gpu = torch.cuda.get_device_name() if _device() == "cuda" else None
    return {"python": sys.version.split()[0], "torch": torch.__version__, "cuda": torch.version.cuda, "gpu": gpu}


def free(state: State) -> None:
    """Give up every baseline and its memory."""
    state.clear()
    gc.collect()
    if _device() == "cuda":
        torch.cuda.empty_cache()


def _net(state: State, model: str, *, tiny: bool) -> Net:
    if "net" not in state:
        state["net"] = make(model, tiny=tiny)
    net: Net = state["net"]
    return net


def _pair(example: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the example with two rows: of one alone, an exporter may take the batch for fixed."""
    return {name: value if len(value) > 1 else torch.cat([value, value]) for name, value in example.items()}


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _key(model: str, batch: int, kind: str) -> str:
    return f"{model} {batch} {kind}"


def _run(module: nn.Module, feeds: Mapping[str, torch.Tensor], device: str, dtype: torch.dtype) -> np.ndarray[Any, Any]:
    """Run in parts of at most 32 rows, which bounds the memory; TF32 is off."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    module = module.to(device)
    parts = []
    rows = len(next(iter(feeds.values())))
    with torch.no_grad():
        for begin in range(0, rows, 32):
            part = {
                name: (value.to(dtype) if value.is_floating_point() else value)[begin : begin + 32].to(device)
                for name, value in feeds.items()
            }
            parts.append(module(**part).double().cpu().numpy())
    return np.concatenate(parts)


def _halved(module: nn.Module, feeds: dict[str, torch.Tensor], *, channels_last: bool) -> Net:
    module = module.half() if _device() == "cuda" else module
    if channels_last:
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    own = next(module.parameters()).dtype
    taken = {name: value.to(own) if value.is_floating_point() else value for name, value in feeds.items()}
    if channels_last:
        taken = {name: value.to(memory_format=torch.channels_last) for name, value in taken.items()}
    return module, taken


def _captured(module: nn.Module, feeds: dict[str, torch.Tensor]) -> Callable[[], Any]:
    """Return a replay of one call as a CUDA graph; what it computes stays in the graph's own memory."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM):
            module(**feeds)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = module(**feeds)

    return functools.partial(_replay, graph, (module, feeds, kept))


def _replay(graph: torch.cuda.CUDAGraph, kept: object) -> None:
    """Replay a graph; what it reads and writes is kept alive with it."""
    del kept
    graph.replay()


def _distance(found: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> float:
    """Return the relative L2."""
    return float(np.linalg.norm(found - right) / np.linalg.norm(right))


HANDLERS = {
    "export": export, "reference": reference, "prepare": prepare, "turn": turn, "versions": versions, "free": free,
    "plans": plans,
}  # fmt: skip

if __name__ == "__main__":
    answer(HANDLERS)
