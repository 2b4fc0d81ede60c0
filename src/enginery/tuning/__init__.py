"""Candidates → the fastest that is accurate enough."""
