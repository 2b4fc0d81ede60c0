"""Graph → graph: read, shaped, simplified, summarised and written, as ``onnx_ir`` models."""
