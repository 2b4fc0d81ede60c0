"""A graph in another version of an operator set: node by node, by rules, definitions and the version converter."""
