"""``python -m enginery`` is the command ``enginery``."""

from __future__ import annotations

import sys

from enginery.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
