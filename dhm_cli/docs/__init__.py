"""What `dhm docs` shows: a Markdown file a topic."""
