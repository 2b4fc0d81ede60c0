"""What the TensorRT backend does on an H200: seven models built, verified, timed beside PyTorch, and taken apart."""
