"""Stage `dhm benchmark`: how fast networks are, side by side with public baselines, and what else they cost."""
