"""Pictures: charts (matplotlib) and faces (OpenCV)."""
