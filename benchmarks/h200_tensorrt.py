"""Everything that is promised of TensorRT on an H200, in one go; see `benchmarks.h200.driver`.

python benchmarks/h200_tensorrt.py --python310 /opt/trt86/bin/python --output OUT --commit ID
python benchmarks/h200_tensorrt.py --dry-run-here
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.h200.driver import main

if __name__ == "__main__":
    raise SystemExit(main())
