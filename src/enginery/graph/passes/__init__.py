"""The passes that simplify a graph, one a file; `enginery.graph.simplify.PASSES` is their order."""
