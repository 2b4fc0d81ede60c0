"""Casts many graphs to fp16 and bf16, by Enginery and by two library converters, and judges what comes out."""
