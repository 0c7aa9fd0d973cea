"""Networks are named with --model."""

from collections.abc import Sequence

from dhm_cli.errors import InputError


def refuse_names(names: Sequence[str] | None) -> None:
    """Refuse networks that are named without an option, as was usual before --model.

    Raises:
        InputError: there are some.
    """
    if names:
        options = " ".join(f"--model {name}" for name in names)
        raise InputError(f"{names[0]}: a network is named by an option", f"pass {options}")
