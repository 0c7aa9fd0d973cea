"""Commands whose networks are named with --model."""

from typing import Any

from typer.core import TyperCommand

from dhm_cli.errors import InputError


class NetworkCommand(TyperCommand):
    """A command that takes no names but by options, and tells who names networks without, as was usual before."""

    allow_extra_args = True

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options.

        Raises:
            InputError: something is named without an option.
        """
        rest = super().parse_args(ctx, args)
        if ctx.args:
            options = " ".join(f"--model {name}" for name in ctx.args)
            raise InputError(f"{ctx.args[0]}: a network is named by an option", f"pass {options}")
        return rest
