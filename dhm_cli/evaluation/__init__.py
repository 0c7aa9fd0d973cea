"""Stage `dhm evaluate`: the truth, the protocols, the numbers and the report."""
