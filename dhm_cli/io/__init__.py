"""Bytes to arrays and back: images, video, landmark files, MATLAB and Torch7 files."""
