"""PyTorch as a source: reading its files with care, calling modules by name, and its exporters."""
