"""Stage `dhm train`: stores become a network."""
