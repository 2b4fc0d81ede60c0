"""The far end of a side: takes requests as lines of JSON, and answers each with one line.

Whatever libraries print goes to the log, for the answers have a handle of their own.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Handler", "answer"]

Handler = Callable[..., Any]


def answer(handlers: Mapping[str, Handler]) -> None:
    """Answer until there are no more requests; a handler takes a state that lasts, and the request's arguments."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        state: dict[str, Any] = {}
        for line in sys.stdin:
            asked = json.loads(line)
            print(json.dumps(_do(handlers, state, asked)), file=out, flush=True)


def _do(handlers: Mapping[str, Handler], state: dict[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {"found": handlers[asked["what"]](state, **asked["arguments"])}
    except Exception as error:  # noqa: BLE001 - the other end must be told of anything
        traceback.print_exc()
        said = {"name": type(error).__name__, "message": getattr(error, "message", str(error))}
        return {"error": {**said, "mend": getattr(error, "mend", None)}}
