"""Precision as a property of the graph: the plan, the cast to it, and quantisation."""
