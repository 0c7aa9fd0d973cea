"""A progress bar for the stages of a workflow."""

from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from tqdm import tqdm

    from dhm_cli.runtime.progress import Progress


def shown_on(bar: "tqdm[NoReturn]") -> "Progress":
    """What workflows call with the name of a stage, what of it is done, and its total: shown on one bar in turn."""
    shown = ("", -1)

    def show(stage: str, done: int, total: int) -> None:
        nonlocal shown
        if shown != (stage, total):
            bar.reset(total)
            bar.set_description(stage)
            shown = (stage, total)
        bar.update(done - bar.n)

    return show
