"""Models by source, each taken through export, simplification, build and verification; run ``python -m benchmarks.gallery``."""
