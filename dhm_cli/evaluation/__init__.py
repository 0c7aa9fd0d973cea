"""Scoring landmarks: the truth, the protocols, the numbers and the report of `dhm evaluate`."""
