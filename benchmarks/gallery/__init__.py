"""Models by source, taken through export, simplification, build and verification: ``python -m benchmarks.gallery``."""
