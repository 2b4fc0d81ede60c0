"""A graph cut into parts, each a whole model: what depends on what, what goes where, and the parts themselves."""
