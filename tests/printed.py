"""What a command printed."""


def folded(text: str) -> str:
    """The text on one line: messages are wrapped at 80 columns."""
    return " ".join(text.split())
