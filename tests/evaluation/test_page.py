"""The HTML page of a report, read back as a browser would."""

import base64
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dhm_cli.errors import FormatError, InputError
from dhm_cli.evaluation.gallery import Section, Tile
from dhm_cli.evaluation.page import interval, number, signed, write_page
from dhm_cli.metrics.headline import HEADLINE, nested

FIVE = ("0-30", "30-60", "60-90", "mean_of_bins", "mean_of_images")
VOID = {"meta", "link", "img", "br"}


class Numbers:
    """Numbers that all print differently, so that each can be looked for in the page."""

    def __init__(self) -> None:
        self.last = 1.0

    def next(self) -> float:
        self.last += 0.07
        return round(self.last, 2)

    def five(self) -> dict[str, float]:
        return {key: self.next() for key in FIVE}

    def headline(self, **rate: float) -> dict[str, Any]:
        numbers = nested({entry.name: self.next() for entry in HEADLINE})
        return {**numbers, "failure_rate": {**rate, "value": numbers["failure_rate"]}}

    def pair(self) -> list[float]:
        return [self.next(), self.next()]

    def difference(self, verdict: str) -> dict[str, Any]:
        low, value, high = self.next(), self.next(), self.next()
        return {"value": -value, "interval": [-high, -low], "verdict": verdict}


def verdict(name: str) -> str:
    return "worse" if name.startswith("auc") else "level" if name in FIVE else "better"


def make_report() -> dict[str, Any]:
    n = Numbers()
    against = {
        "name": "the other",
        "file": "other.onnx",
        "hash": "cc33",
        "protocol": "detector",
        "refine": 1,
        "missing": {"count": 5},
        **n.headline(),
        "difference": {"common": 1129, **nested({e.name: n.difference(verdict(e.name)) for e in HEADLINE})},
    }
    pose = {key: n.next() for key in ("geodesic", "pitch", "yaw", "roll", "mean")}
    row = {
        "citation": "Some One, 2017",
        "cpu_fps": "<1",
        "gpu_fps": ">900",
        "size_mb": 193.7,
        "remark": "a remark",
        "source": "A",
    }
    return {
        "schema": "dhm-evaluation",
        "schema_version": 1,
        "dhm_version": "9.8.7",
        "method": {
            "name": "our method",
            "kind": "network",
            "file": "net.onnx",
            "hash": "aa11",
            "arch": "fast",
            "input_size": 120,
        },
        "data": {
            "file": "faces.h5",
            "name": "faces",
            "layout": "merl-rav",
            "hash": "bb22",
            "split": "val",
            "note": "16 of the 2,000",
        },
        "caveats": ["our method: no points for 105 of 1,234 faces", "the other: its points lie elsewhere"],
        "labels": "original",
        "protocol": "jitter",
        "refine": 2,
        "normaliser": "bbox",
        "unit": "% of face size",
        "n": 1234,
        "bins": {"0-30": 611, "30-60": 412, "60-90": 211},
        "measured": {"0-30": 559, "30-60": 381, "60-90": 189, "mean_of_images": 1129},
        "missing": {
            "policy": "fail",
            "count": 105,
            "by_bin": {"0-30": 52, "30-60": 31, "60-90": 22},
            "names": ["m.jpg"],
        },
        **n.headline(threshold=4.5),
        "nme_by_labelled_yaw": {
            **n.five(),
            "bins": {"0-30": 613, "30-60": 414, "60-90": 207},
            "intervals": {key: n.pair() for key in FIVE},
        },
        "intervals": {
            "level": 95.0,
            "replicates": 2017,
            "seed": 3,
            **nested({entry.name: n.pair() for entry in HEADLINE}),
        },
        "regions": {name: n.five() for name in ("jaw", "brows", "nose", "eyes", "mouth")},
        "visibility": {"visible": n.five(), "self_occluded": n.five(), "share_self_occluded": n.next()},
        "landmarks": [n.next() for _ in range(68)],
        "mean_offset": [n.next(), -n.next()],
        "nme_3d": {**n.five(), "depth": n.five()},
        "pose": {
            "source": "aligned",
            "n": 1177,
            "limit": 99.0,
            "excluded": ["turned away.jpg"],
            **pose,
            "median": {key: n.next() for key in ("geodesic", "pitch", "yaw", "roll")},
        },
        "worst": [{"name": f"worst {k}.jpg", "yaw": -60.0 - k, "nme": n.next()} for k in range(3)],
        "against": [against],
        "robustness": [
            {
                "kind": "shift",
                "level": 12.5,
                **{k: n.next() for k in ("mean_of_bins", "mean_of_images", "failure_rate")},
            }
        ],
        "rolls": [{"roll": 345, **{k: n.next() for k in ("mean_of_bins", "mean_of_images", "failure_rate")}}],
        "upright": {**n.five(), "failure_rate": n.next()},
        "doubts": {
            "sigma": {
                key: {k: n.next() for k in ("within_one", "within_wide", "within_two")} | {"likelihood": 1.2345}
                for key in "ab"
            },
            "visibility": {
                "self_occluded_auc": 0.9871,
                "self_occluded_balanced": 94.56,
                "occluded_auc": 0.8761,
                "shares": {},
            },
            "confidence": {
                "failure_auc": 0.8651,
                "not_face_auc": 0.9841,
                "not_faces": 1390,
                "believed": 3.21,
                "doubted": 1.23,
                "reliability": [{"from": 0.9, "claims": 1950.0, "claimed": 0.9671, "right": 0.9541}],
                "kept": [{"percent": 90.0, "nme": n.next(), "failure_rate": n.next()}],
            },
        },
        "noise_floor": {**n.five(), "failure_rate": n.next()},
        "published": {
            "title": "Printed results",
            "sources": {"A": "The first paper", "B": "The second"},
            "rows": [
                {"name": "First", **row, "original": [n.next() for _ in range(4)], "reannotated": None},
                {
                    **dict.fromkeys(("cpu_fps", "gpu_fps", "size_mb", "original")),
                    "name": "Second",
                    "citation": "Any One, 2018",
                    "remark": "",
                    "source": "B",
                    "reannotated": [n.next() for _ in range(4)],
                },
            ],
            "slips": ["The first is printed wrong."],
            "comparable": False,
            "why_not": "these are other faces",
        },
        "definitions": {"nme": "What it is.", "mean_of_bins": "What that is."},
        "environment": {"python": "3.99", "packages": {"numpy": "2.99", "torch": None}, "command": "dhm evaluate --x"},
    }


def without_options(report: dict[str, Any]) -> dict[str, Any]:
    for key in ("nme_by_labelled_yaw", "nme_3d", "pose", "robustness", "rolls", "upright", "doubts", "noise_floor"):
        report[key] = None
    report["against"], report["worst"], report["environment"], report["caveats"] = [], [], {"command": ""}, []
    report["missing"] = {"policy": "skip", "count": 0, "by_bin": dict.fromkeys(FIVE[:3], 0), "names": []}
    report["method"] = {**report["method"], "kind": "predictions", "arch": None, "input_size": None}
    report["data"].update(note="")
    report["refine"] = None
    report["published"].update(comparable=True, why_not="", slips=[], rows=[])
    return report


class Page(HTMLParser):
    """The parts of a page that tests ask for; fails where tags are not closed in order.

    Attributes:
        tags: name and attributes, in order.
        text: of the body, words apart by single spaces.
        tables: rows of cell texts, by the label of the box around.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.label = ""
        self.feed(source)
        self.close()
        assert self.open == [], "every tag is closed"
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if dict(attrs).get("role") == "region":
            self.label = str(dict(attrs)["aria-label"])
            self.tables[self.label] = []
        if tag == "tr":
            self.tables[self.label].append([])
        if tag in ("td", "th"):
            self.tables[self.label][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "body" in self.open:
            self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[self.label][-1][-1] += data

    def row(self, table: str, start: str) -> list[str]:
        """Cells of the row whose first cell starts so, after the first."""
        (found,) = [row for row in self.tables[table] if row[0].startswith(start)]
        return [" ".join(cell.split()) for cell in found[1:]]


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Path]:
    result = {}
    for k, name in enumerate(("ced", "yaw", "landmarks", "robustness")):
        result[name] = tmp_path / f"{name}.png"
        cv2.imwrite(str(result[name]), np.full((30 + k, 50, 3), 40 * k, np.uint8))
    return result


def show(folder: Path, report: dict[str, Any], pictures: dict[str, Path]) -> Page:
    path = folder / "out" / "report.html"
    write_page(path, report, pictures, show_published=True)
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    return Page(path.read_text(encoding="utf-8"))


def leaves(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*place, str(key)))
    elif value is not None:
        yield place, value


def test_every_number_and_name_of_the_report_is_in_the_page(tmp_path: Path, pictures: dict[str, Path]) -> None:
    report = make_report()
    shown = set(re.findall(r"[^\s\[\],;()]+", (text := show(tmp_path, report, pictures).text)))
    told = report["doubts"]
    assert {
        "1.234",
        "0.987",
        "94.6",
        "0.876",
        "0.865",
        "0.984",
        "3.2",
        "1.2",
        "0.967",
        "0.954",
    } <= shown
    report["doubts"] = {
        "sigma": [[row["within_one"], row["within_wide"], row["within_two"]] for row in told["sigma"].values()]
    }
    report["doubts"]["kept"] = [[row["nme"], row["failure_rate"]] for row in told["confidence"]["kept"]]
    for place, value in leaves(report):
        if isinstance(value, float) and place[-1] not in ("threshold", "limit", "level", "size_mb", "yaw"):
            expected = f"{abs(value):.2f}"
            assert {expected, f"+{expected}", f"−{expected}"} & shown, place  # noqa: RUF001
        elif isinstance(value, int) and not isinstance(value, bool):
            assert f"{value:,}" in text, place
        elif isinstance(value, str) and place[-1] not in ("kind", "policy", "source"):
            assert value in text, place
    assert "95 % interval" in text
    assert {"FR@4.5", "12.5", "193.7", "99", "−62.0"} <= shown  # noqa: RUF001


def test_numbers_are_in_their_rows(tmp_path: Path, pictures: dict[str, Path]) -> None:
    report = make_report()
    report["against"][0]["difference"]["nme"]["60-90"]["verdict"] = "too few images"
    page = show(tmp_path, report, pictures)
    values, ends = report["nme"], report["intervals"]["nme"]
    labelled = report["nme_by_labelled_yaw"]
    for key, title in zip(FIVE[:3], ("0–30°", "30–60°", "60–90°"), strict=True):  # noqa: RUF001
        assert page.row("NME by bin", title) == [
            f"{report['measured'][key]} of {report['bins'][key]}",
            f"{values[key]:.2f}",
            f"[{ends[key][0]:.2f}, {ends[key][1]:.2f}]",
            str(labelled["bins"][key]),
            f"{labelled[key]:.2f}",
            f"[{labelled['intervals'][key][0]:.2f}, {labelled['intervals'][key][1]:.2f}]",
            f"{report['noise_floor'][key]:.2f}",
        ]
    (other,) = report["against"]
    assert page.row("All methods", "the other")[:5] == [f"{other['nme'][key]:.2f}" for key in FIVE]
    lost = other["difference"]["auc"]["8"]
    assert page.row("Difference from the other", "AUC@8") == [
        "▼ worse",
        f"−{-lost['value']:.2f}",  # noqa: RUF001
        f"[−{-lost['interval'][0]:.2f}, −{-lost['interval'][1]:.2f}]",  # noqa: RUF001
    ]
    assert page.row("Difference from the other", "FR@4.5")[0] == "▲ better"
    assert page.row("Difference from the other", "mean of bins")[0] == "≈ level"
    assert page.row("Difference from the other", "60–90°")[0] == "too few images"  # noqa: RUF001
    for name, row in report["regions"].items():
        assert page.row("NME by region", name)[1:] == [f"{row[key]:.2f}" for key in FIVE]


@pytest.mark.parametrize(("labels", "columns"), [("original", slice(0, 4)), ("reannotated", slice(4, 8))])
def test_our_row_beside_the_published_ones(
    tmp_path: Path, pictures: dict[str, Path], labels: str, columns: slice
) -> None:
    report = make_report()
    report["labels"] = labels
    page = show(tmp_path, report, pictures)
    cells = page.row("Published results", "our method")
    ours = [f"{report['nme'][key]:.2f}" for key in FIVE[:4]]
    assert cells[columns] == ours
    assert [cell for cell in cells if cell] == ours
    assert page.row("Published results", "First")[8:] == ["<1", ">900", "193.7"]
    assert [cell for cell in page.row("Published results", "Second") if cell] == [
        f"{value:.2f}" for value in report["published"]["rows"][1]["reannotated"]
    ]
    assert "cannot be compared with this evaluation: these are other faces." in page.text


def test_without_anything_optional(tmp_path: Path) -> None:
    report = without_options(make_report())
    page = show(tmp_path, report, {})
    assert not any(tag == "img" for tag, _ in page.tags)
    assert "None" not in page.text
    assert "nan" not in page.text.lower()
    for absent in ("Comparison", "three dimensions", "Head pose", "Robustness", "without points", "cannot be compared"):
        assert absent not in page.text
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = [str(attributes["href"]) for tag, attributes in page.tags if tag == "a"]
    assert {link.removeprefix("#") for link in links} <= ids, "no link leads nowhere"
    assert len(page.row("NME by bin", "mean of bins")) == 3


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_numbers_that_are_not_known_are_dashes(tmp_path: Path, nothing: float | None) -> None:
    report = make_report()
    report["nme"]["60-90"], report["intervals"]["nme"]["60-90"] = nothing, [nothing, nothing]
    report["landmarks"] = [nothing] * 68
    page = show(tmp_path, report, {})
    assert page.row("NME by bin", "60–90°")[1:3] == ["–", "–"]  # noqa: RUF001
    assert "nan" not in page.text.lower()


def test_nothing_is_fetched_and_nothing_runs(tmp_path: Path, pictures: dict[str, Path]) -> None:
    page = show(tmp_path, make_report(), pictures)
    source = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\(|@import|javascript:", source)
    assert "script" not in {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        if "src" in attributes:
            assert str(attributes["src"]).startswith("data:image/png;base64,")
        if "href" in attributes:
            assert str(attributes["href"]).startswith("#" if tag == "a" else "data:")
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in str(policy)


def test_pictures_are_inside_with_their_size_and_a_text(tmp_path: Path, pictures: dict[str, Path]) -> None:
    page = show(tmp_path, make_report(), pictures)
    shown = [attributes for tag, attributes in page.tags if tag == "img"]
    data = {base64.b64decode(str(a["src"]).partition(",")[2]): (a["width"], a["height"]) for a in shown}
    assert data == {path.read_bytes(): ("50", str(30 + k)) for k, path in enumerate(pictures.values())}
    assert all(len(str(attributes["alt"])) > 20 for attributes in shown)


HOSTILE = "<script>alert(1)</script>\"'&amp; onload=x 顔"


def test_names_are_escaped(tmp_path: Path, pictures: dict[str, Path]) -> None:
    def spoil(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: spoil(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [spoil(v) for v in value]
        kept = ("kind", "normaliser", "verdict", "labels", "policy", "source")
        return value + HOSTILE if isinstance(value, str) and key not in kept else value

    page = show(tmp_path, spoil(make_report()), pictures)
    tags = {tag for tag, _ in page.tags}
    assert "script" not in tags
    assert not any("onload" in attributes for _, attributes in page.tags)
    for name in (
        "our method",
        "the other",
        "worst 0.jpg",
        "m.jpg",
        "turned away.jpg",
        "First",
        "What it is.",
        "net.onnx",
    ):
        assert name + HOSTILE in page.text


def test_a_name_that_no_encoding_can_write(tmp_path: Path) -> None:
    report = make_report()
    report["worst"][0]["name"] = "bild\udce4.jpg"  # how Python reads the byte 0xe4 in a file name
    assert "bild?.jpg" in show(tmp_path, report, {}).text


def test_it_is_a_sound_document(tmp_path: Path, pictures: dict[str, Path]) -> None:
    page = show(tmp_path, make_report(), pictures)
    assert page.tags[0] == ("html", {"lang": "en"})
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings.count(1) == 1
    assert (np.diff(headings) <= 1).all(), "no level is left out"
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a} <= set(ids)


def test_caveats_and_missing_faces_are_in_plain_sight(tmp_path: Path) -> None:
    text = show(tmp_path, make_report(), {}).text
    assert "our method: no points for 105 of 1,234 faces." in text
    assert "the other: its points lie elsewhere." in text
    assert "and 104 more" in text
    assert "over the 1,129 faces that both found" in text


def test_same_report_same_page(tmp_path: Path, pictures: dict[str, Path]) -> None:
    for name in ("a.html", "b.html"):
        write_page(tmp_path / name, json.loads(json.dumps(make_report())), pictures)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_pictures_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    with pytest.raises(InputError, match=r"gone\.png: no such picture"):
        write_page(tmp_path / "report.html", make_report(), {"ced": tmp_path / "gone.png"})
    (tmp_path / "ced.png").write_bytes(b"\xff\xd8 a photograph")
    with pytest.raises(FormatError, match=r"ced\.png: not a PNG"):
        write_page(tmp_path / "report.html", make_report(), {"ced": tmp_path / "ced.png"})
    assert (tmp_path / "report.html").read_text() == "old"


def test_how_numbers_are_printed() -> None:
    assert [number(value) for value in (2.345678, -0.5, -0.001, 0.0, 1234.5, None, float("nan"), float("inf"))] == [
        *("2.35", "−0.50", "0.00", "0.00", "1234.50"),  # noqa: RUF001
        *("–", "–", "–"),  # noqa: RUF001
    ]
    assert [signed(value) for value in (0.5, -0.5, 0.001, None)] == ["+0.50", "−0.50", "0.00", "–"]  # noqa: RUF001
    assert number(-62.25, 1) == "−62.2"  # noqa: RUF001
    assert interval([-0.4, 1.0]) == "[−0.40, 1.00]"  # noqa: RUF001
    assert [interval(ends) for ends in (None, [None, None], [float("nan"), 1.0])] == ["–"] * 3  # noqa: RUF001


def test_the_gallery_has_whole_names_and_pictures_inside(tmp_path: Path) -> None:
    tiles = [Tile("sub/whole name <of> a face.jpg", 41.0, 7.25, b"jpeg"), Tile("lost", 3.0, float("nan"), b"")]
    write_page(tmp_path / "report.html", make_report(), {}, [Section("largest error", tiles)])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    text = Page(page).text
    for words in ("largest error", "7.25 %", "+41°", "sub/whole name <of> a face.jpg", "+3°", "lost"):
        assert words in text, words
    assert "data:image/jpeg;base64,anBlZw==" in page


def test_published_rows_are_left_out_where_they_cannot_be_compared(tmp_path: Path) -> None:
    report = make_report()
    for comparable in (False, True):
        report["published"]["comparable"] = comparable
        write_page(tmp_path / "report.html", report, {})
        text = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
        assert ("Printed results" in text) == comparable
        assert ("cannot be compared with this evaluation" in text) != comparable
