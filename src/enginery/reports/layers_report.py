"""The layers of an engine: what each is, which types it reads and writes, and what of the source it came from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from enginery.records import LayerRecord
from enginery.reports import figures
from enginery.reports.layout import PLAIN, Column, Style, join, paragraph, table

__all__ = ["layers_text"]

_NAME = 34
_NODE = 32
_SHOWN = 2
_JOINED = re.compile(r" \+ | \|\| ")
_COPY = re.compile(r"^Reformatting CopyNode for (Input|Output) Tensor (\d+) to (.*)$", re.DOTALL)


def layers_text(layers: Sequence[LayerRecord], style: Style = PLAIN) -> str:
    """Render the layers of an engine in its own order; a long name keeps its end, which tells more than its start."""
    columns = [
        Column("#", right=True),
        Column("layer"),
        Column("kind", rank=1),
        Column("in"),
        Column("reads", wraps=True, rank=4),
        Column("writes", wraps=True, rank=4),
        Column("ONNX nodes", wraps=True, rank=3),
        Column("modules", wraps=True, rank=2),
    ]
    rows = [
        [
            str(at),
            _short_name(one),
            _short(one.kind.rpartition(".")[2], _NAME // 2),
            one.precision or "-",
            "\n".join(_counted(one.inputs)),
            "\n".join(_counted(one.outputs)),
            "\n".join(_some([_short(node, _NODE) for node in one.nodes])),
            "\n".join(_some(one.modules)),
        ]
        for at, one in enumerate(layers)
    ]
    return join(paragraph(_summary(layers), style), table(columns, rows, style))


def _summary(layers: Sequence[LayerRecord]) -> str:
    """Count layers by precision; those that compute nothing, or do not say, come last."""
    counts = Counter(one.precision for one in layers)
    said = [f"{number} in {word}" for word, number in sorted(counts.items()) if word]
    if counts[""]:
        said.append(f"{counts['']} in none (-): moving data, or not telling")
    fused = sum(len(one.nodes) > 1 for one in layers)
    more = f"; {fused} of them hold several ONNX nodes" if fused else ""
    return f"{figures.plural(len(layers), 'layer')}: {', '.join(said)}{more}"


def _short_name(one: LayerRecord) -> str:
    """Say a layer's name in one line: the first of the names that were joined, and how many more there are."""
    name, kept = one.name, ""
    if match := _COPY.match(name):
        kept, name = f"to {match[1].lower()} {match[2]} of ", match[3]
    first, *others = _JOINED.split(name)
    end = f" +{len(others)}" if others else ""
    return f"{kept}{_short(first, _NAME - len(kept) - len(end))}{end}"


def _short(text: str, width: int) -> str:
    """Keep the end of a text that is too long."""
    return text if len(text) <= width else f"...{text[3 - width :]}"


def _counted(texts: Sequence[str]) -> list[str]:
    """Write each type and format once, with how often it occurs."""
    return [f"{number} x {text}" if number > 1 else text for text, number in Counter(texts).items()]


def _some(texts: Sequence[str]) -> list[str]:
    more = [f"and {len(texts) - _SHOWN} more"] if len(texts) > _SHOWN else []
    return [*texts[:_SHOWN], *more]
