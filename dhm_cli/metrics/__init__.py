"""Accuracy numbers of face alignment: numpy only."""
