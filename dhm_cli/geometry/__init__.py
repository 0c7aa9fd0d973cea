"""Landmarks, crops, head pose and self-occlusion: numpy and OpenCV only."""
