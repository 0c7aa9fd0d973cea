"""Errors that users see: what went wrong, where, and what to do next."""


class DhmError(Exception):
    """A problem that the user can act on.

    Args:
        message: what happened, naming the file or option, with what was expected and what was found.
        hint: the next step, as a command or an action; empty when there is none.

    Example:
        >>> from dhm_cli import DhmError, read_image
        >>> try:
        ...     read_image("absent.jpg")
        ... except DhmError as error:
        ...     print(f"{error.message}; {error.hint}")
        absent.jpg: cannot be read: No such file or directory; check the name and the permissions
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(DhmError):
    """A file or an argument given by the user cannot be used."""


class FormatError(DhmError):
    """A file of ours (store, checkpoint, face model) is damaged, foreign or of another version."""
