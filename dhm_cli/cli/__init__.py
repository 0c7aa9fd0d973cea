"""The terminal: typer and rich live only here."""
