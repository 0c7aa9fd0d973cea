"""One self-contained HTML page of a report: no script, no request, pictures inside."""

import base64
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dhm_cli.errors import FormatError, InputError
from dhm_cli.evaluation.gallery import Section
from dhm_cli.geometry.landmarks import GROUPS
from dhm_cli.metrics.headline import HEADLINE, HeadlineNumber
from dhm_cli.metrics.landmark_error import YAW_BINS
from dhm_cli.runtime.atomic import written_atomically

_TEMPLATE = "report.html.j2"
_NONE = "–"  # noqa: RUF001, a dash where there is no number
_MINUS = "\N{MINUS SIGN}"
_PNG = b"\x89PNG\r\n\x1a\n"


def write_page(
    path: Path,
    report: Mapping[str, Any],
    pictures: Mapping[str, Path],
    gallery: Sequence[Section] = (),
    show_published: bool = False,
) -> None:
    """Write the page of a report, atomically.

    Args:
        path: the HTML file; its folder is made.
        report: the content of `report.json` (schema version 1). Everything in it is escaped; None and NaN become a
            dash.
        pictures: PNG files by name: "ced", "yaw", "landmarks", "robustness"; what is not there is left out.
        gallery: faces to look at.
        show_published: show the published rows although they cannot be compared.

    Raises:
        InputError: a picture is missing.
        FormatError: a picture is no PNG.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "signed": signed, "interval": interval, "count": _count, "jpeg": _jpeg}
    text = environment.get_template(_TEMPLATE).render(
        r=report,
        gallery=gallery,
        show_published=show_published,
        pictures={name: _embedded(picture) for name, picture in pictures.items()},
        bins=tuple(YAW_BINS),
        five=[number.name for number in HEADLINE if number.place[0] == "nme"],
        others=[number for number in HEADLINE if number.place[0] != "nme"],
        headline=HEADLINE,
        titles={number.name: number.short.format(threshold=report["failure_rate"]["threshold"]) for number in HEADLINE},
        at=_at,
        groups={name: f"{group.start}\N{EN DASH}{group.stop - 1}" for name, group in GROUPS.items()},
    )
    with written_atomically(path) as partial:
        # A file name that is no text in any encoding has surrogates, which UTF-8 cannot write.
        partial.write_bytes(text.encode("utf-8", "replace"))


def number(value: float | None, digits: int = 2) -> str:
    """A number with a true minus sign, a dash for None and NaN; what rounds to zero has no sign."""
    if value is None or not math.isfinite(value):
        return _NONE
    text = f"{abs(value):.{digits}f}"
    return _MINUS + text if value < 0 and float(text) else text


def signed(value: float | None, digits: int = 2) -> str:
    """A number as in `number`, with a plus where it is positive."""
    text = number(value, digits)
    return text if text[0] in _MINUS + _NONE or not float(text) else "+" + text


def interval(ends: Sequence[float | None] | None, digits: int = 2) -> str:
    """An interval as "[low, high]", a dash where there is none."""
    if ends is None or any(end is None or not math.isfinite(end) for end in ends):
        return _NONE
    return f"[{', '.join(number(end, digits) for end in ends)}]"


def _at(numbers: Mapping[str, Any], number: HeadlineNumber) -> Any:
    """What a part of a report says of a headline number: its value, interval or difference."""
    found: Any = numbers
    for key in number.place:
        found = found[key]
    return found["value"] if isinstance(found, Mapping) and "verdict" not in found else found  # with its threshold


def _count(value: int | None) -> str:
    return _NONE if value is None else f"{value:,}"


def _jpeg(data: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def _embedded(path: Path) -> dict[str, Any]:
    """A PNG as data URI, with its size in pixels, so that the page can keep its place before it is decoded."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such picture", "evaluate again with --report") from error
    if not data.startswith(_PNG) or len(data) < 24:
        raise FormatError(f"{path}: not a PNG file", "evaluate again with --report")
    width, height = struct.unpack(">II", data[16:24])  # the header chunk comes first
    return {"uri": f"data:image/png;base64,{base64.b64encode(data).decode()}", "width": width, "height": height}
