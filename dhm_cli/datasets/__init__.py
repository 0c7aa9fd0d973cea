"""Third-party datasets on disk, one file a family; `catalogue` lists them."""
