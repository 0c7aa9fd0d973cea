"""Stages `dhm prepare` and `dhm relabel`: datasets become stores of labelled faces."""
