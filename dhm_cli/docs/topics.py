"""The topics of the documentation, and their pages."""

from difflib import get_close_matches
from importlib.resources import files

from dhm_cli.errors import InputError

# In the order of reading; each is a file NAME.md beside this one.
TOPICS = (
    "align",
    "formats",
    "video",
    "dense",
    "scale",
    "conventions",
    "evaluating",
    "benchmarking",
    "preparing",
    "training",
    "papers",
    "privacy",
    "changelog",
)


def page(topic: str) -> str:
    """The page of a topic, Markdown.

    Raises:
        InputError: there is no such topic.

    Example:
        >>> from dhm_cli.docs.topics import page
        >>> page("conventions").splitlines()[0]
        '# Conventions'
    """
    if topic not in TOPICS:
        near = get_close_matches(topic, TOPICS, n=1, cutoff=0.5)
        hint = f"dhm docs {near[0]} may be meant; " if near else ""
        raise InputError(f"{topic}: no topic of the documentation", f"{hint}there are {', '.join(TOPICS)}")
    return (files("dhm_cli") / "docs" / f"{topic}.md").read_text(encoding="utf-8")


def summary(topic: str) -> str:
    """What a page is about: its first paragraph, one line."""
    return " ".join(page(topic).split("\n\n")[1].split())
