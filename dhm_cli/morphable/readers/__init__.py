"""Readers of the face model files that users hold."""
