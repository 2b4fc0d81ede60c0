"""Enginery: a trained model in, an inference engine that is fast, verified and explained out."""

__version__ = "0.1.0"
