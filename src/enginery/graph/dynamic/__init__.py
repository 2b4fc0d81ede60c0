"""Fixed axes of a graph are made to vary: read, followed, mended, proved, or refused with the nodes in the way."""
