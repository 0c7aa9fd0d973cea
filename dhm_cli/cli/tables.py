"""Tables that are whole at 80 columns, in a terminal and in a pipe: no name and no number is ever broken or cut."""

from collections.abc import Sequence

import typer

from dhm_cli.cli.lines import WIDTH, printable


def print_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str = "",
    sections: Sequence[int] = (),
    err: bool = False,
) -> None:
    """Print rows below headers, or one row below the other where they are too wide for that.

    The first column holds names and is set to the left, the others to the right.

    Args:
        headers: of each column; a header may have several lines.
        rows: each as many cells as there are headers.
        title: a line above.
        sections: numbers of rows behind which a line is drawn.
        err: to standard error.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    split = [header.split("\n") for header in headers]
    height = max(map(len, split))
    heads = [[(["" for _ in range(height - len(words))] + words)[k] for words in split] for k in range(height)]
    widths = [max(map(len, column)) for column in zip(*heads, *cells, strict=True)]
    lines = [title] if title else []
    if sum(widths) + 2 * (len(widths) - 1) <= WIDTH:
        rule = "  ".join("-" * width for width in widths)
        lines += [*(_line(head, widths) for head in heads), rule]
        for number, row in enumerate(cells):
            lines += [_line(row, widths)] + ([rule] if number in sections else [])
    else:
        lines += _one_below_the_other([" ".join(header.split()) for header in headers], cells)
    typer.echo("\n".join(line.rstrip() for line in lines), err=err)


def _one_below_the_other(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    broadest = max(map(len, names[1:]), default=0)
    lines = []
    for row in rows:
        lines.append(f"{names[0]}: {row[0]}" if names[0] else row[0])
        lines += [f"  {name:{broadest}}  {cell}" for name, cell in zip(names[1:], row[1:], strict=True) if cell]
    return lines


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = cells
    return "  ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:], strict=True))])
