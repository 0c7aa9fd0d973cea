"""Faces to files: tables, pages, crops, overlays, drawn videos; one file a format."""
