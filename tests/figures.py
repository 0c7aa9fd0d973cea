"""The figures in README, docs and cards: read from the files that commands wrote, and put into the tables.

    make accuracy DATA=folder    # writes accuracy/
    make bench                   # writes bench/speed.json; of a busy machine only the ratios are taken
    make figures                 # both into dhm_cli/docs/figures.json, and from there into the tables

A table stands between `<!-- figures: NAME -->` and `<!-- end -->`; NAME is a key of `TABLES`. What is not there leaves
its figures as they were. `aflw2000` is measured where that dataset is, and written into the JSON by hand.
"""

import json
import math
import re
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from places import ROOT

DOCS = ROOT / "dhm_cli" / "docs"
PAGES = (ROOT / "README.md", *sorted(DOCS.glob("*.md")))
CARDS = tuple(sorted((ROOT / "dhm_cli" / "weights").glob("*.md")))
FIGURES = DOCS / "figures.json"
NETWORKS = ("fast", "fast-x2")
REGIONS = ("jaw", "brows", "nose", "eyes", "mouth")
BINS = ("0-30", "30-60", "60-90", "mean_of_bins", "mean_of_images")
_NETWORK = ("network", "onnxruntime", 1)
_MOUTH = "slope of the mouth's opening"
_HEAD = ("", "0-30°", "30-60°", "60-90°", "mean of bins", "mean of images")
_TABLE = re.compile(r"(<!-- figures: (\S+) -->\n).*?(<!-- end -->)", re.S)

Figures = dict[str, Any]


# What the commands wrote -> figures


def accuracy(folder: Path) -> Figures:
    """What the tables show of the reports of `make accuracy`."""
    from human_points import human_figures

    from dhm_cli.data.store import FaceStore

    store = FaceStore(folder / "prepared" / "merl.h5")
    found: Figures = {"command": "make accuracy DATA=folder"}
    for name in NETWORKS:
        plain, detector, jitter, roll = (
            json.loads((folder / f"{name}{part}" / "report.json").read_text(encoding="utf-8"))
            for part in ("", "-detector", "-jitter", "-roll")
        )
        human = human_figures(store, folder / name)
        found["version"], found["commit"] = plain["dhm_version"], plain["environment"]["commit"][:7]
        found[name] = {
            "hash": plain["method"]["hash"],
            "nme": _rounded(plain["nme"], 3),
            "interval": [round(end, 3) for end in plain["intervals"]["nme"]["mean_of_bins"]],
            "detector": {**_rounded(detector["nme"], 3), "missed": detector["missing"]["count"]},
            "jitter": _rounded(jitter["nme"], 3),
            "human": _rounded(human, 3),
            **_w300(folder, name),
            "regions": {name: _rounded(plain["regions"][name], 3) for name in REGIONS},
            "depth": _rounded(plain["nme_3d"]["depth"], 3),
            "pose": {name: round(plain["pose"][name], 2) for name in ("geodesic", "pitch", "yaw", "roll")},
            "faces": plain["n"],
            "failure_rate": round(plain["failure_rate"]["value"], 3),
            "roll": {
                "faces": roll["n"],
                "upright": round(roll["rolls"][0]["mean_of_images"], 3),
                "worst": round(max(turned["mean_of_images"] for turned in roll["rolls"]), 3),
            },
            "doubts": _doubts(plain["doubts"]),
        }
    return found


def _w300(folder: Path, name: str) -> Figures:
    from human_points import human_figures

    from dhm_cli.data.store import FaceStore

    if not (folder / f"{name}-w300").exists():
        return {}
    return {"w300": _rounded(human_figures(FaceStore(folder / "prepared" / "w300.h5"), folder / f"{name}-w300"), 3)}


def _doubts(doubts: Figures) -> Figures:
    confidence, visibility = doubts["confidence"], doubts["visibility"]
    return {
        "not_faces": confidence["not_faces"],
        **{name: round(confidence[name], 4) for name in ("not_face_auc", "failure_auc", "believed", "doubted")},
        **{name: round(visibility[name], 4) for name in ("self_occluded_balanced", "occluded_auc")},
        "sigma": {name: [round(s["within_one"], 2), round(s["within_wide"], 2)] for name, s in doubts["sigma"].items()},
        "without_tenth": round(next(k for k in confidence["kept"] if k["percent"] == 90)["failure_rate"], 3),
    }


def ratios(report: Figures) -> Figures:
    """How networks compare in a report of `dhm benchmark`: they take turns, so a busy machine slows all alike."""
    shown = [line for line in report["lines"] if (line["level"], line["engine"], line["batch"]) == _NETWORK]
    times = {line["subject"]: round(line["times_faster"], 3) for line in shown}
    return {"command": report["command"], **_measured(report), **{name: times[name] for name in NETWORKS}}


def rates(report: Figures) -> Figures:
    """Photos a second and memory in a report of `dhm benchmark` on an idle machine."""
    found: Figures = {"measured": "Photos a second: {machine}, commit {commit}.".format(**_measured(report))}
    for name in NETWORKS:
        (photo,) = (
            k for k in report["lines"] if (k["level"], k["engine"], k["subject"]) == ("photo", _NETWORK[1], name)
        )
        folders = [k for k in report["folders"] if k["subject"] == name and k["photos_per_s"]]
        (two,) = (k for k in report["processes"] if k["subject"] == name)
        found[name] = {
            "photo": round(1000 / photo["median_ms"], 1),
            "folders": {
                k.get("folder", "250 x 250"): [round(k["photos_per_s"], 1), round(k["peak_bytes"][1] / 1e6)]
                for k in folders
            },
            "two_processes": round(two["speed_up"], 2),
        }
    return found


def _measured(report: Figures) -> Figures:
    environment = report["environment"]
    return {"machine": f"one core of an {environment['processor']}", "commit": environment["commit"][:7]}


def _rounded(values: Figures, digits: int) -> Figures:
    return {name: round(value, digits) for name, value in values.items() if math.isfinite(value)}


# Figures -> tables


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n".replace("  ", " ") for line in lines)


def _interval(mean: float, ends: list[float]) -> str:
    return f"**{mean:.2f}** ({ends[0]:.2f}-{ends[1]:.2f})"


def aflw2000(figures: Figures) -> str:
    """All that is known on AFLW2000-3D."""
    rows = []
    for row in figures["aflw2000"]["rows"]:
        mean = _interval(row["mean"], row["interval"]) if "interval" in row else f"{row['mean']:.2f}"
        one_based = f"{row['one_based']:.2f}" if "one_based" in row else ""
        zero_based = f"{row['zero_based']:.2f}" if "zero_based" in row else ""
        rows.append((row["name"], " / ".join(f"{b:.2f}" for b in row.get("bins", [])), mean, zero_based, one_based))
    head = ("", "0-30 / 30-60 / 60-90", "mean of bins", "re-annotated, 0-based", "read 1-based")
    return table(head, rows) + f"\n{figures['aflw2000']['measured']}\n"


def aflw2000_short(figures: Figures) -> str:
    """The README's rows of it."""
    rows = []
    for row in figures["aflw2000"]["rows"]:
        if "size" in row:
            mean = _interval(row["mean"], row["interval"]) if "interval" in row else f"{row['mean']:.2f}"
            reannotated = f"{row['one_based']:.2f}" if "one_based" in row else ""
            rows.append((row["name"], mean, reannotated, row["size"]))
    head = ("", "original labels (95 %)", "re-annotated", "size")
    return table(head, rows) + f"\n{figures['aflw2000']['measured']}\n"


def validation(figures: Figures) -> str:
    """Accuracy on the validation split."""
    rows: list[tuple[object, ...]] = []
    found = figures["accuracy"]
    for what, key in (
        ("", "nme"),
        ("boxes of the face detector", "detector"),
        ("true boxes off by up to 10 % in place and size", "jitter"),
        ("human points", "human"),
        ("human points of 300-W's held-out photos", "w300"),
    ):
        for name in [name for name in NETWORKS if key in found[name]]:
            nme = {bin_: _two(found[name][key].get(bin_)) for bin_ in BINS}
            if key == "nme":
                nme["mean_of_bins"] = _interval(found[name][key]["mean_of_bins"], found[name]["interval"])
            missed = f" ({found[name][key]['missed']} missed)" if key == "detector" else ""
            rows.append((f"`{name}`{', ' * bool(what)}{what}{missed}", *(nme[bin_] for bin_ in BINS)))
    for name in NETWORKS:
        free = found[name]["human"]["but for convention"]
        rows.append((f"`{name}`, human points but for convention", "", "", "", f"{free:.2f}", ""))
    for name in NETWORKS:
        slope = found[name]["human"][_MOUTH]
        rows.append((f"`{name}`, opening of the mouth over people's", "", "", "", f"{slope:.2f}", ""))
    return table(_HEAD, rows) + _belongs(found)


def card(name: str) -> Callable[[Figures], str]:
    """Accuracy of one network, for its model card."""

    def rows(figures: Figures) -> str:
        found = figures["accuracy"][name]
        shown = [("all 68 points", found["nme"]), *found["regions"].items()]
        shown += [("depth, mean absolute error", found["depth"])]
        shown += [(f"boxes of the face detector ({found['detector']['missed']} missed)", found["detector"])]
        shown += [("true boxes off by up to 10 % in place and size", found["jitter"])]
        shown += [("human visible points of the inner 51", found["human"])]
        lines = [(what, *(f"{nme[bin_]:.2f}" for bin_ in BINS)) for what, nme in shown]
        said = (
            "95 % of the mean of bins: {interval[0]:.2f} to {interval[1]:.2f}. {failure_rate:.2f} % of {faces:,} faces "
            "have an NME above 6 %.\nPose, mean absolute error: geodesic {pose[geodesic]:.1f}°, pitch "
            "{pose[pitch]:.1f}°, yaw {pose[yaw]:.1f}°, roll {pose[roll]:.1f}°.\n"
            "Human points but for the mean offset of each landmark: "
        ).format(**found)
        human = found["human"]
        said += f"{human['but for convention']:.2f}; mouths open {human[_MOUTH]:.2f} times as wide as people's.\n"
        return table(_HEAD, lines) + f"\n{said}" + _belongs(figures["accuracy"])

    return rows


def doubts(figures: Figures) -> str:
    """What the networks know about their errors."""
    found = figures["accuracy"]

    def row(what: str, cell: Callable[[Figures, Figures], str]) -> tuple[str, ...]:
        return (what, *(cell(found[name]["doubts"], found[name]) for name in NETWORKS))

    def sigma(name: str) -> Callable[[Figures, Figures], str]:
        return lambda d, _: "{:.1f}, {:.1f} %".format(*d["sigma"][name])

    rows = [
        row("confidence: area under the ROC, faces against not-faces", lambda d, _: f"{d['not_face_auc']:.3f}"),
        row("... errors below 6 % against the other faces", lambda d, _: f"{d['failure_auc']:.3f}"),
        row("... `doubtful` among right faces", lambda d, _: f"{d['doubted']:.1f} %"),
        row("... not `doubtful` among not-faces", lambda d, _: f"{d['believed']:.1f} %"),
        row(
            "hidden by the head itself, balanced accuracy (limits on the pose: 93.5)",
            lambda d, _: f"{d['self_occluded_balanced']:.1f} %",
        ),
        row("covered by something else, area under the ROC", lambda d, _: f"{d['occluded_auc']:.3f}"),
        row("errors within 1 and 1.79 sigma, yaw to 30° (right: 68.3, 95.0)", sigma("0-30")),
        row("... 30-60°", sigma("30-60")),
        row("... 60-90°", sigma("60-90")),
        row(
            "errors beyond 6 %: all faces; without the least sure tenth",
            lambda d, n: f"{n['failure_rate']:.2f}; {d['without_tenth']:.2f} %",
        ),
        row(
            "NME of a photo turned by 0°; worst of every other 15°",
            lambda _, n: f"{n['roll']['upright']:.2f}; {n['roll']['worst']:.2f}",
        ),
    ]
    return table(("", *(f"`{name}`" for name in NETWORKS)), rows) + _belongs(found)


def _two(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _belongs(found: Figures) -> str:
    files = " and ".join(f"`{name}.onnx` {found[name]['hash'][:8]}…" for name in NETWORKS)
    return f"\nOf {files} (SHA-256), measured at commit {found['commit']}.\n"


def speed(figures: Figures) -> str:
    """Speed, for the README and for the page on benchmarks."""
    times, found = figures["ratios"], figures["rates"]

    def row(what: str, cell: Callable[[Figures], str]) -> tuple[str, ...]:
        return (what, *(cell(found[name]) for name in NETWORKS))

    rows = [
        ("network, against MobileNet-V1 x0.5", *(f"**{times[name]:.2f} times as fast**" for name in NETWORKS)),
        row("a 512 x 512 JPEG, from file to landmarks", lambda f: f"{f['photo']:.0f} photos/s"),
        *(row(f"`dhm align`, {kind}", partial(_folder, kind)) for kind in found["fast"]["folders"]),
        row("two processes on two cores, against one", lambda f: f"{f['two_processes']:.2f} times"),
    ]
    said = f"Times as fast: {times['machine']}, commit {times['commit']}. {found['measured']}"
    return table(("", *(f"`{name}`" for name in NETWORKS)), rows) + f"\n{said}\n"


def _folder(kind: str, found: Figures) -> str:
    return "{:.0f} photos/s, {} MB".format(*found["folders"][kind])


def scale(figures: Figures) -> str:
    """Machines and hours for many photos, with `fast`."""
    found = figures["rates"]["fast"]
    rows = []
    for kind, rate in (("512 x 512", found["photo"]), *((kind, rate) for kind, (rate, _) in found["folders"].items())):
        hours = [photos / (rate * cores * 3600) for photos, cores in ((1e6, 8), (1e7, 8), (1e8, 64))]
        rows.append((kind, f"{rate:.0f}", *(f"{h:.1f} h" for h in hours), f"{math.ceil(1e8 / (rate * 86400))} cores"))
    head = ("photos", "a second and core", "1 million, 8 cores", "10 million, 8 cores", "100 million, 64 cores")
    return table((*head, "100 million in a day"), rows)


TABLES: dict[str, Callable[[Figures], str]] = {
    "aflw2000": aflw2000,
    "aflw2000-short": aflw2000_short,
    "validation": validation,
    "doubts": doubts,
    **{f"card-{name}": card(name) for name in NETWORKS},
    "speed": speed,
    "scale": scale,
}


def filled(page: str, figures: Figures) -> str:
    """A page with its tables as the figures say."""
    return _TABLE.sub(lambda found: f"{found[1]}{TABLES[found[2]](figures)}{found[3]}", page)


def main(measured: Path, benchmark: Path) -> None:
    """Bring figures and tables up to date."""
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    if (measured / "fast-x2-roll" / "report.json").exists():
        figures["accuracy"] = accuracy(measured)
    if benchmark.exists():
        report = json.loads(benchmark.read_text(encoding="utf-8"))
        figures["ratios"] = ratios(report)
        if not report["warnings"]:
            figures["rates"] = rates(report)
    FIGURES.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for page in (*PAGES, *CARDS):
        page.write_text(filled(page.read_text(encoding="utf-8"), figures), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
