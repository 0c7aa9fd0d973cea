"""The terminal: one file a command; typer and rich live only here."""
