"""The framework's process with exporters that die, each in its way; started in place of the real one."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace

from enginery.sources.tensorflow import jobs
from enginery.sources.tensorflow.routes import ROUTES


def abort(*_):
    """Die as a failed assertion in C++ does."""
    os.abort()


def killed(*_):
    """Die as where memory ran out."""
    os.kill(os.getpid(), signal.SIGKILL)


ROUTES["frozen"] = replace(ROUTES["frozen"], convert=abort)
if sys.argv.pop(1) == "all":
    for name in ("whole", "keras", "function"):
        ROUTES[name] = replace(ROUTES[name], convert=killed)

if __name__ == "__main__":
    jobs.main()
