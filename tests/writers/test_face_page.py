"""The page of all faces: its file, and the page in a real browser."""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import CHROMIUM, Page, browser
from example_photos import ASTRONAUT, write_album
from numpy.typing import NDArray

from dhm_cli.alignment.photos import align_files
from dhm_cli.errors import InputError
from dhm_cli.geometry.pose import yaw_pitch_roll_to_matrix
from dhm_cli.inference.aligner import Aligner, Face
from dhm_cli.inference.columns import FRAME_KEYS, Layout
from dhm_cli.inference.results import NO_FACE, OK, UNREADABLE, PhotoResult
from dhm_cli.inference.surfaces import with_surfaces
from dhm_cli.writers.face_page import FacePage, PageLines
from dhm_cli.writers.tiles import largest_side, with_tiles

EVIL = [
    "</script><script>window.hacked = 1</script>.png",
    '" onerror="window.hacked = 1" x=\'.png',
    "<img src=x onerror=window.hacked=1>.png",
    "--><!--{{7*7}}\\u003c&lt;.png",
    "\udcff not utf-8 \u202e🙂.png",
]


@pytest.fixture(scope="module")
def face(astronaut: NDArray[np.uint8]) -> Face:
    return with_tiles(astronaut, Aligner("cpu").align(astronaut))[0]


@pytest.fixture(scope="module")
def solid(face: Face) -> Face:
    """With a dense face."""
    return with_surfaces([face])[0]


def write_page(out: Path, photos: list[tuple[PhotoResult, list[Face]]]) -> Path:
    page = FacePage(out, Layout(), False)
    for result, faces in photos:
        page.write(result, faces)
    page.finish()
    return out


def many(face: Face, count: int) -> list[tuple[PhotoResult, list[Face]]]:
    """Photos with one face each: yaws from -90 to 90, confidences from 1 down to 0, the same number of each."""
    shares = np.linspace(0, 1, count)
    return [
        (
            PhotoResult(f"album {k % 3}/photo {k}.png", OK, 1),
            [
                replace(
                    face,
                    confidence=1 - share,
                    rotation=yaw_pitch_roll_to_matrix(np.radians([180 * (k * 11 % count) / (count - 1) - 90, 0, 0])),
                )
            ],
        )
        for k, share in enumerate(shares.tolist())
    ]


def rows(page: Path) -> list[dict[str, object]]:
    block = page.read_text(encoding="utf-8").split('id="faces">\n')[1].split("</script>")[0]
    return [json.loads(line) for line in block.splitlines()]


def test_the_page_holds_what_became_of_every_photo(tmp_path: Path, dummy_network: Path) -> None:
    outs = [tmp_path / "t.csv", tmp_path / "faces.html"]
    report = align_files([write_album(tmp_path / "album")], outs, device="cpu", model=dummy_network)
    found = rows(outs[1])
    assert [row["status"] for row in found] == [OK, NO_FACE, UNREADABLE, OK, OK, OK]
    assert [row["path"] for row in found][:5] == [result.path for result in report.results]
    first = found[0]
    assert len(first["points"]) == 136  # type: ignore[arg-type]
    assert base64.b64decode(first["webp"])[8:12] == b"WEBP"  # type: ignore[arg-type]
    assert (first["confidence"], first["hidden"]) == (None, None)  # the dummy network does not tell


def test_the_policy_allows_this_script_and_this_style_alone(tmp_path: Path, face: Face) -> None:
    text = write_page(tmp_path / "p.html", many(face, 2)).read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]  # type: ignore[index]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; ")
    for tag in ("script", "style"):
        content = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]  # type: ignore[index]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), "no address to ask"
    assert "style=" not in text


def test_tiles_are_as_sharp_as_the_photo_where_there_are_few(astronaut: NDArray[np.uint8], face: Face) -> None:
    def sides(larger: float, faces: int, photos: int) -> list[int]:
        image = cv2.resize(astronaut, None, fx=larger, fy=larger)
        enlarged = replace(face, landmarks=face.landmarks * larger)
        found = [face.tile for face in with_tiles(image, [enlarged] * faces, largest_side(photos))]
        assert all(abs(tile.landmarks - face.tile.landmarks).max() < 0.02 for tile in found if tile and face.tile)
        return [image_size(tile.webp) for tile in found if tile]

    def image_size(webp: bytes) -> int:
        return len(cv2.imdecode(np.frombuffer(webp, np.uint8), cv2.IMREAD_COLOR))

    (native,) = sides(2, 1, 500)
    assert 250 < native < 400
    assert sides(1, 1, 500) == [224], "a small face is not blown up"
    assert sides(4, 6, 500) == [448] * 4 + [224] * 2
    assert sides(4, 1, 501) == [224]


def test_names_of_files_are_text(tmp_path: Path, face: Face) -> None:
    page = write_page(tmp_path / "p.html", [(PhotoResult(name, OK, 1), [face]) for name in EVIL])
    text = page.read_text(encoding="utf-8")
    assert len(re.findall("</script", text)) == 3
    assert "window.hacked" in text
    assert "<img src=x" not in text
    assert [row["path"] for row in rows(page)] == EVIL


def test_a_page_holds_dense_faces_as_weights_of_one_model(tmp_path: Path, face: Face, solid: Face) -> None:
    text = write_page(tmp_path / "p.html", many(solid, 3)).read_text(encoding="utf-8")
    found = json.loads(text.split('id="model">')[1].split("</script>")[0])
    assert "Permission is hereby granted" in found["licence"]
    raw = zlib.decompress(base64.b64decode(found["data"]))
    assert len(raw) == 6 * (found["modes"] * found["vertices"] + 13140)
    modes = np.frombuffer(raw[: 6 * found["modes"] * found["vertices"]], "<i2").reshape(found["modes"], 3, -1)
    row = rows(tmp_path / "p.html")[1]
    assert len(json.dumps(row["mesh"])) < 500
    pose, weights = (np.array(values) for values in row["mesh"])  # type: ignore[attr-defined]
    shape = np.tensordot([1, *(weights / 100)], modes * found["step"], 1)
    points = (pose[:9].reshape(3, 3) @ shape).T + pose[9:]
    assert solid.surface is not None
    off = (points - in_tile(solid, solid.surface.vertices))[:, :2]
    assert np.abs(off).max() < 1.5  # thousandths of the tile
    assert 'id="model"' not in write_page(tmp_path / "flat.html", many(face, 2)).read_text()


def in_tile(face: Face, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Photo pixels as thousandths of the face's tile, by what the landmarks are in both."""
    assert face.tile is not None
    line = np.linalg.lstsq(np.c_[face.landmarks[:, 0], np.ones(68)], face.tile.landmarks[:, :2], rcond=None)[0]
    scale = line[0, 0]
    shift = face.tile.landmarks[0] - scale * face.landmarks[0]
    return 1000 * (scale * points + shift)


@pytest.mark.parametrize("kind", ["face", "solid"])
def test_an_interrupted_page_goes_on(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    photos = many(request.getfixturevalue(kind), 5)
    whole = write_page(tmp_path / "whole.html", photos).read_bytes()
    for torn in (b"", b'{"path": "album 0/ph', b"</script>\n</body>\n</html>\n"):
        page = FacePage(tmp_path / "p.html", Layout(), False)
        for result, faces in photos[:3]:
            page.write(result, faces)
        page.close()
        partial = tmp_path / "p.html.partial"
        partial.write_bytes(partial.read_bytes() + torn)
        with pytest.raises(InputError, match="of an interrupted run"):
            FacePage(tmp_path / "p.html", Layout(), False)
        page = FacePage(tmp_path / "p.html", Layout(), True)
        kept = len(page.finished)
        assert kept == 2  # the last photo may lack faces
        for result, faces in photos[kept:]:
            page.write(result, faces)
        page.finish()
        assert (tmp_path / "p.html").read_bytes() == whole
        assert not partial.exists()


def test_a_page_is_known_again(tmp_path: Path, face: Face) -> None:
    page = write_page(tmp_path / "p.html", many(face, 2))
    (tmp_path / "other.html").write_text("<!doctype html>\n<html><p>mine")
    assert PageLines().is_ours(page)
    assert not PageLines().is_ours(tmp_path / "other.html")
    with pytest.raises(InputError, match="exists and is not"):
        align_files([ASTRONAUT], [tmp_path / "other.html"], device="cpu")


# --- In a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH")
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(window: Page) -> Iterator[Page]:
    """The browser, in which nothing may go wrong."""
    window.problems.clear()
    yield window
    assert window.problems == []


def tiles(page: Page) -> list[str]:
    """What is written below the tiles in the document, in their order."""
    page.settle()
    return page.run("[...document.querySelectorAll('#grid li')].map(tile => tile.innerText.replace(/\\s+/g, ' '))")  # type: ignore[no-any-return]


def choose(page: Page, control: str, value: str, event: str = "input") -> None:
    page.run(
        f"(control => {{ control.value = '{value}'; control.dispatchEvent(new Event('{event}')); }})"
        f"(document.getElementById('{control}'))"
    )
    page.settle()


def count(page: Page) -> str:
    page.settle()
    return page.run("document.getElementById('count').textContent")  # type: ignore[no-any-return]


@pytest.mark.parametrize(("width", "height", "dark"), [(1280, 800, False), (390, 844, True)])
def test_tiles_are_sorted_and_filtered(
    tmp_path: Path, face: Face, page: Page, width: int, height: int, dark: bool
) -> None:
    page.open(write_page(tmp_path / "p.html", many(face, 301)), width, height, dark)
    assert page.run("document.getElementById('summary').textContent") == "301 faces · 301 photos · 150 doubtful"
    first = tiles(page)
    assert 6 <= len(first) < 100, "only those near the window are in the document"
    assert first[0].startswith("photo 300.png 0 %")
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    background = page.run("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", background)[0]) < 100) == dark

    choose(page, "sort", "yaw", "change")
    assert tiles(page)[0] == "photo 0.png 100 % yaw \u221290°"
    page.run("document.getElementById('reverse').click()")
    assert "yaw 90°" in tiles(page)[0]
    page.run("document.getElementById('reverse').click()")
    choose(page, "sort", "file", "change")
    assert [text.split(".")[0] for text in tiles(page)[:3]] == ["photo 0", "photo 3", "photo 6"], "as people count"

    choose(page, "search", "ALBUM 1/ photo 10")
    assert count(page) == "5 of 301 faces"  # 10, 100, 103, 106, 109
    choose(page, "search", "nowhere")
    assert (count(page), tiles(page)) == ("0 of 301 faces", [])
    assert page.run("!document.getElementById('nothing').hidden")
    page.run("document.getElementById('reset').click()")
    assert page.run("new Promise(done => setTimeout(done, 50))") is None
    assert count(page) == "all 301 faces"

    choose(page, "confidence-high", "20")
    assert count(page) == "61 of 301 faces"
    choose(page, "yaw-low", "90")
    assert page.run("document.querySelector('#yaw output').textContent") == "0° to 90°"
    both = int(count(page).split()[0])
    assert 20 < both < 40
    assert all("\u2212" not in text for text in tiles(page))


def test_a_tile_is_enlarged_by_the_keyboard(tmp_path: Path, face: Face, page: Page) -> None:
    page.open(write_page(tmp_path / "p.html", many(face, 50)))
    page.settle()
    focus = "document.activeElement.closest('li')?.dataset.index ?? document.activeElement.id"
    page.run("document.querySelector('#grid button').focus()")
    page.press("ArrowRight")
    page.press("ArrowDown")
    index = int(page.run(focus))
    assert index > 3
    page.press("Enter")
    assert page.run("document.getElementById('large').open")
    name = page.run("document.getElementById('large-name').textContent")
    assert name == f"album {(49 - index) % 3}/photo {49 - index}.png"
    assert "confidence" in page.run("document.querySelector('dl').innerText")
    page.press("ArrowRight")
    assert f"photo {48 - index}.png" in page.run("document.getElementById('large-name').textContent")
    page.press("Escape")
    assert not page.run("document.getElementById('large').open")
    assert int(page.run(focus)) == index + 1
    page.press("End")
    assert int(page.run(focus)) == 49
    assert page.run("scrollY") > 0


def test_landmarks_lie_on_the_picture_and_hidden_ones_are_rings(tmp_path: Path, face: Face, page: Page) -> None:
    visibility = np.tile([0.9, 0.05, 0.05], (68, 1))
    visibility[:5] = [0.1, 0.1, 0.8]
    page.open(write_page(tmp_path / "p.html", [(PhotoResult("a.png", OK, 1), [replace(face, visibility=visibility)])]))
    page.settle()
    drawn = page.run(
        "[...document.querySelectorAll('#grid path')].map(p => [p.getAttribute('class'), p.getAttribute('d')])"
    )
    rings = "".join(d for kind, d in drawn if kind == "ring")
    points = "".join(d for kind, d in drawn if kind == "point")
    assert (rings.count("M"), points.count("M")) == (5, 63)
    assert face.tile is not None
    nose = (1000 * face.tile.landmarks[30, :2]).round().astype(int)
    assert f"M{nose[0]} {nose[1]}h0" in points
    assert (
        page.run(
            "document.querySelector('#grid img').decode().then(() => document.querySelector('#grid img').naturalWidth)"
        )
        == 224
    )
    assert page.run("document.querySelector('#grid img').alt") == "Face 0 of a.png"


def canvas_of(page: Page, folder: Path) -> NDArray[np.uint8]:
    """What the canvas shows, BGR, without its edge."""
    page.run("document.querySelector('canvas').scrollIntoView()")
    for _ in range(3):
        page.settle()
    page.screenshot(folder / "window.png")
    edges = "left", "top", "right", "bottom"
    left, top, right, bottom = (
        round(page.run("devicePixelRatio * " + f"document.querySelector('canvas').getBoundingClientRect().{edge}"))
        for edge in edges
    )
    image = cv2.imread(str(folder / "window.png"))
    assert image is not None
    return image[top + 20 : bottom - 20, left + 20 : right - 20].astype(np.uint8)


@pytest.mark.parametrize(("width", "height", "dark"), [(1280, 800, False), (390, 844, True)])
def test_a_dense_face_turns(
    tmp_path: Path, solid: Face, page: Page, width: int, height: int, dark: bool, face: Face
) -> None:
    faces = [replace(solid, confidence=0.5), replace(solid, confidence=0.6), replace(face, confidence=0.9)]
    page.open(write_page(tmp_path / "p.html", [(PhotoResult("a.png", OK, 3), faces)]), width, height, dark)
    page.settle()
    page.run("document.querySelector('#grid button').click()")
    assert page.run("document.querySelector('canvas') === null"), "only when it is asked for"
    page.run("document.getElementById('solid').click()")
    page.wait("document.querySelector('canvas') !== null")
    start = canvas_of(page, tmp_path)
    middle = start[len(start) // 3 : -len(start) // 3, len(start) // 3 : -len(start) // 3]
    assert middle[..., 2].mean() > middle[..., 0].mean() + 20  # skin
    assert middle.mean() > 80 > start[:4].mean()  # a face before a dark ground

    def difference(other: NDArray[np.uint8]) -> float:
        return float(np.abs(start.astype(int) - other).mean())

    box = "document.querySelector('canvas').getBoundingClientRect()"
    place = f"(box => [box.x + box.width / 2, box.y + box.height / 2])({box})"
    page.drag(*page.run(place), 90, 10)
    dragged = canvas_of(page, tmp_path)
    assert difference(dragged) > 5
    page.drag(*page.run(place), -90, -10)
    assert difference(canvas_of(page, tmp_path)) < 3
    page.run("document.querySelector('canvas').focus()")
    page.press("ArrowRight")
    assert difference(canvas_of(page, tmp_path)) > 2
    assert page.run("document.querySelector('dl dd').textContent") == "0", "the key turned the face alone"

    page.run("document.getElementById('next').click()")
    assert difference(canvas_of(page, tmp_path)) < 1, "the next one is as it stands in its photo"
    page.run("document.getElementById('colours').click()")
    grey = canvas_of(page, tmp_path)
    assert np.ptp(grey.astype(int), axis=2).max() < 16
    assert page.run("document.querySelectorAll('canvas').length") == 1
    page.run("document.getElementById('next').click()")  # without a dense face
    page.settle()
    assert page.run("getComputedStyle(document.querySelector('canvas')).display") == "none"
    assert page.run("document.getElementById('solid').offsetParent === null")
    assert page.run("document.documentElement.scrollWidth <= innerWidth")


def test_a_browser_without_webgl_says_so(tmp_path: Path, solid: Face, page: Page) -> None:
    source = "HTMLCanvasElement.prototype.getContext = () => null"
    script = page.call("Page.addScriptToEvaluateOnNewDocument", source=source)["identifier"]
    page.open(write_page(tmp_path / "p.html", many(solid, 2)))
    page.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
    page.settle()
    page.run("document.querySelector('#grid button').click(); document.getElementById('solid').click()")
    page.wait("document.getElementById('solid-hint').textContent.includes('no WebGL')")
    assert page.run("getComputedStyle(document.querySelector('#large-picture img')).visibility") == "visible"
    assert page.run("document.getElementById('colours').offsetParent === null")
    assert page.run("document.querySelector('canvas') === null")


def test_a_lost_webgl_context_is_made_anew(tmp_path: Path, solid: Face, page: Page) -> None:
    page.open(write_page(tmp_path / "p.html", many(solid, 2)))
    page.settle()
    page.run("document.querySelector('#grid button').click(); document.getElementById('solid').click()")
    page.wait("document.querySelector('canvas') !== null")
    canvas_of(page, tmp_path)
    page.run("document.querySelector('canvas').getContext('webgl').getExtension('WEBGL_lose_context').loseContext()")
    page.wait("document.querySelector('canvas') === null")
    assert page.run("getComputedStyle(document.querySelector('#large-picture img')).visibility") == "visible"
    page.run("document.getElementById('solid').click()")
    page.wait("document.querySelector('canvas') !== null")
    shown = canvas_of(page, tmp_path)
    assert shown[len(shown) // 2, len(shown) // 2].mean() > 80


def test_evil_names_do_nothing(tmp_path: Path, face: Face, page: Page) -> None:
    page.open(write_page(tmp_path / "p.html", [(PhotoResult(name, OK, 1), [face]) for name in EVIL]))
    shown = tiles(page)
    assert len(shown) == len(EVIL)
    page.run(
        "document.querySelectorAll('#grid button').forEach("
        "button => { button.click(); document.getElementById('large').close(); })"
    )
    page.settle()
    assert page.run("window.hacked === undefined")
    assert page.run("document.querySelectorAll('script:not([type])').length") == 1
    assert any("<img src=x" in text for text in shown)


def test_a_page_of_a_video(tmp_path: Path, face: Face, page: Page) -> None:
    video = FacePage(tmp_path / "p.html", Layout(keys=FRAME_KEYS), False)
    for k in range(90):
        faces = [replace(face, track=number, tile=None if k % 30 else face.tile) for number in (0, 1, 10)]
        result = PhotoResult("clips/a.mp4", OK, 3, frame=k, time=60 + k / 30)
        video.write(result, faces if k != 5 else [])
    video.write(PhotoResult("clips/a.mp4", UNREADABLE, frame=90, time=63.0), [])
    video.finish()
    page.open(tmp_path / "p.html", 390, 844)
    summary = page.run("document.getElementById('summary').textContent")
    assert summary.startswith("267 faces · 91 frames · 3 tracks · shown once a second · ")
    assert summary.endswith(" · 1 damaged")
    assert count(page) == "all 9 tiles"
    choose(page, "sort", "track", "change")
    assert [text[:14] for text in tiles(page)[:4]] == [
        *(f"track 0 · 1:0{k}" for k in range(3)),
        "track 1 · 1:00",
    ]
    choose(page, "search", "Track 1")
    assert count(page) == "3 of 9 tiles", "not those of track 10"
    choose(page, "search", "frame 30 track 10")
    assert tiles(page)[0].startswith("track 10 · 1:01 100 %")
    page.run("document.querySelector('#grid button').click()")
    facts = page.run("document.querySelector('dl').innerText").split()
    assert facts[:6] == ["track", "10", "time", "1:01.0", "frame", "30"]


def test_a_page_without_faces(tmp_path: Path, page: Page) -> None:
    page.open(write_page(tmp_path / "p.html", [(PhotoResult("a.png", NO_FACE), [])]))
    assert page.run("document.getElementById('summary').textContent") == "0 faces · 1 photo · 1 without a face"
    assert count(page) == "all 0 faces"
