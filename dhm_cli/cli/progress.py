"""One progress bar for all stages of a command."""

from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from tqdm import tqdm

    from dhm_cli.runtime.progress import Progress


def shown_on(bar: "tqdm[NoReturn]") -> "Progress":
    """A `Progress` that shows the stages one after another on the same bar."""
    shown = ("", -1)

    def show(stage: str, done: int, total: int) -> None:
        nonlocal shown
        if shown != (stage, total):
            bar.reset(total)
            bar.set_description(stage)
            shown = (stage, total)
        bar.update(done - bar.n)

    return show
