"""Record → JSON text."""

from __future__ import annotations

from typing import Any

from enginery.plain import to_json

__all__ = ["as_json"]


def as_json(record: Any) -> str:
    """Write a record, or a mapping or sequence of records, as JSON text that ends with a line break.

    Example:
        >>> from enginery.records import FileRecord
        >>> print(as_json({"model.onnx": FileRecord("00", 3)}), end="")
        {
          "model.onnx": {
            "sha256": "00",
            "bytes": 3
          }
        }
    """
    return to_json(record) + "\n"
