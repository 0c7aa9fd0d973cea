"""`dhm prepare`."""

from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dhm_cli.cli.guides import say_next
from dhm_cli.cli.lines import say
from dhm_cli.cli.progress import shown_on
from dhm_cli.cli.tables import print_table
from dhm_cli.datasets.catalogue import DATASETS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dhm_cli.errors import DhmError
    from dhm_cli.morphable.face_model import FaceModel
    from dhm_cli.preparation.checks import Finding
    from dhm_cli.preparation.options import PrepareOptions
    from dhm_cli.preparation.report import PrepareReport

_FACE_MODEL, _LABELS, _STORES, _CHECKS = "Face model", "Labels", "Stores", "Checks"
_VIEWS, _MACHINE = "Turned views", "Machine"
# Dropped faces, and faces of a finding, listed by name.
_LISTED = 5
_FORMATS = ("auto", *DATASETS)
_RENAMED = {"merl-rav": "signed-pts"}


def _known_format(name: str) -> str:
    """A value of --format, or the usual error with the list of them."""
    if name in _RENAMED:
        raise typer.BadParameter(f"{name!r} is called {_RENAMED[name]!r} now, since a format is not a dataset.")
    if name not in _FORMATS:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(map(repr, _FORMATS))}.")
    return name


def prepare(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Datasets: 300W-LP, AFLW2000-3D, LS3D-W and its parts, 300VW-3D, MERL-RAV, images with .pts files.",
            show_default=False,
        ),
    ] = None,
    bfm: Annotated[
        Path | None,
        typer.Option(
            help="Face model, file or folder: BFM 2009, 2017, 2019, 3DDFA, face3d, Deep3DFaceRecon, ICT-FaceKit.",
            show_default=False,
            rich_help_panel=_FACE_MODEL,
        ),
    ] = None,
    expression: Annotated[
        Path | None,
        typer.Option(
            help="Expression basis to join with BFM 2009: Exp_Pca.bin or Model_Exp.mat.",
            show_default=False,
            rich_help_panel=_FACE_MODEL,
        ),
    ] = None,
    keypoints: Annotated[
        Path | None,
        typer.Option(
            help="The 68 landmark vertices, where the face model names none: .anl or text, 0-based.",
            show_default=False,
            rich_help_panel=_FACE_MODEL,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for face_model.h5 and the stores.", rich_help_panel=_STORES)
    ] = Path("data"),
    dataset_format: Annotated[
        str,
        typer.Option(
            "--format",
            help="Dataset layout; points: images whose labels are in --points or --prior. "
            f"One of {', '.join(_FORMATS)}.",
            metavar="<name>",  # the list would be broken within a name at 80 columns
            parser=_known_format,
            autocompletion=lambda: _FORMATS,
            rich_help_panel=_LABELS,
        ),
    ] = "auto",
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the store, for one dataset; default: the dataset's name.",
            show_default=False,
            rich_help_panel=_STORES,
        ),
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option(
            help="Human points where there is no annotation file: .npz with names (N,) and an array (N, 68, 2) or, in "
            "AFLW's scheme, (N, 21, 2); 0-based pixels, NaN where not labelled.",
            show_default=False,
            rich_help_panel=_LABELS,
        ),
    ] = None,
    prior: Annotated[
        Path | None,
        typer.Option(
            help="Approximate points of another method, .npz as above, (N, 68, 2); trusted little.",
            show_default=False,
            rich_help_panel=_LABELS,
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            help="CSV with name and, if known, split (train, val), identity, yaw.",
            show_default=False,
            rich_help_panel=_LABELS,
        ),
    ] = None,
    reannotated: Annotated[
        Path | None,
        typer.Option(
            help="Second labels of AFLW2000-3D: .npy (N, 2, 68) in the order of the sorted names, or LS3D-W's folder.",
            show_default=False,
            rich_help_panel=_LABELS,
        ),
    ] = None,
    reannotated_origin: Annotated[
        int,
        typer.Option(
            min=0,
            max=1,
            help="Number of the first pixel in --reannotated: 0, or 1 as in MATLAB.",
            rich_help_panel=_LABELS,
        ),
    ] = 0,
    yaw_labels: Annotated[
        Path | None,
        typer.Option(
            help="AFLW's own yaw labels for AFLW2000-3D: .npy (N,), degrees, in the order of the sorted names.",
            show_default=False,
            rich_help_panel=_LABELS,
        ),
    ] = None,
    split: Annotated[
        Literal["train", "val", "test", "auto"],
        typer.Option(
            help="Split of faces that no table or dataset assigns; auto: 5 % validation, by identity.",
            rich_help_panel=_STORES,
        ),
    ] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Of the automatic split.", rich_help_panel=_STORES)] = 0,
    max_residual: Annotated[
        float,
        typer.Option(
            min=0,
            help="Training faces whose fit is worse are left out, percent of the face size.",
            rich_help_panel=_CHECKS,
        ),
    ] = 4.0,
    over_residual: Annotated[
        Literal["drop", "flag"],
        typer.Option(help="Leave such faces out of the store, or keep them with a flag.", rich_help_panel=_CHECKS),
    ] = "drop",
    self_occlusion: Annotated[
        bool,
        typer.Option(
            "--self-occlusion",
            help="Landmarks without a point (-1 -1) are hidden by the head itself, as in MERL-RAV, which networks can "
            "learn to tell; without this they have no label.",
            rich_help_panel=_LABELS,
        ),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Refuse a dataset when the checks find an error or a warning.", rich_help_panel=_CHECKS
        ),
    ] = False,
    profile: Annotated[
        int,
        typer.Option(
            min=0,
            help="Also make this many views at larger yaw of every training face up to 60°.",
            rich_help_panel=_VIEWS,
        ),
    ] = 0,
    surface: Annotated[
        Path | None,
        typer.Option(
            help="Dense face model for --profile. Default: that of --bfm, or where it has only landmarks, the face of "
            "ICT-FaceKit that comes with dhm.",
            show_default=False,
            rich_help_panel=_VIEWS,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Threads; default: one per core.", show_default=False, rich_help_panel=_MACHINE),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(help="Only validate this store.", show_default=False, metavar="FILE", rich_help_panel=_CHECKS),
    ] = None,
    show: Annotated[
        Path | None,
        typer.Option(
            help="Only print what is in this file and draw a contact sheet beside it.",
            show_default=False,
            metavar="FILE",
            rich_help_panel=_CHECKS,
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Replace files of another kind that have the names of outputs.", rich_help_panel=_STORES
        ),
    ] = False,
) -> None:
    """Convert a face model and datasets to HDF5 with 3DMM parameters, fitted where a dataset has none, and check them.

    With --bfm alone, every known dataset below the current folder is converted.

    Run again with the same arguments, a conversion that was stopped goes on where it was. What the checks found goes to
    report.json, the worst faces to a contact sheet.
    """
    if check is not None or show is not None:
        if folders or bfm:
            raise typer.BadParameter("--check and --show take no folders and no --bfm")
        if show is not None:
            _show(show, force)
        if check is not None:
            _check(check)
        return

    from dhm_cli.errors import InputError

    if bfm is None and not folders:
        raise InputError("nothing to do", "give a face model with --bfm BFM.mat, and folders of datasets")
    if bfm is None and (expression or keypoints):
        raise InputError("--expression and --keypoints belong to a face model", "name it with --bfm")

    from dhm_cli.runtime.threads import single_threaded_mathematics

    single_threaded_mathematics()
    from dhm_cli.morphable.face_model import is_face_model
    from dhm_cli.morphable.location import FACE_MODEL
    from dhm_cli.preparation.options import PrepareOptions
    from dhm_cli.preparation.store_names import name_stores
    from dhm_cli.runtime.outputs import check_output

    options = PrepareOptions(
        format=dataset_format,
        points=points,
        prior=prior,
        table=table,
        reannotated=reannotated,
        reannotated_origin=reannotated_origin,
        yaw_labels=yaw_labels,
        split=split,
        seed=seed,
        max_residual=max_residual,
        over_residual=over_residual,
        self_occlusion=self_occlusion,
        strict=strict,
        name=name,
    )
    inputs = [path for path in (bfm, expression, keypoints, surface) if path is not None]
    name_all = partial(name_stores, out=out, options=options, profile=profile > 0, inputs=inputs, force=force)
    jobs, failed = name_all(folders or [])
    if folders and not jobs:
        raise failed[0]
    if bfm is not None:
        read = [*inputs, *options.inputs().values()]
        check_output(out / FACE_MODEL, "--out", "a face model of dhm", is_face_model, read, force)
    model = _face_model(bfm, expression, keypoints, out)
    if not folders:
        jobs, failed = name_all(_search(out), rename=True)
    _convert(jobs, failed, model, out, workers, profile, surface)


def _face_model(bfm: Path | None, expression: Path | None, keypoints: Path | None, out: Path) -> "FaceModel":
    """Convert the face model, or take the one converted before."""
    from dhm_cli.morphable.face_model import FaceModel
    from dhm_cli.morphable.location import FACE_MODEL
    from dhm_cli.preparation.prepare import prepare_face_model

    if bfm is None:
        return FaceModel.load(out / FACE_MODEL)
    model = prepare_face_model(bfm, out, expression, keypoints)
    modes = f"{model.identity.shape[-1]} + {model.expression.shape[-1]} modes"
    surface = f", {len(model.mesh.mean):,} vertices" if model.mesh else ""
    kind = model.origin.format if model.origin else model.name
    say(f"wrote {out / FACE_MODEL}: {kind}, {modes}{surface}, {model.hash()}")
    for note in model.origin.notes if model.origin else ():
        say(f"note: {note}")
    return model


def _search(out: Path) -> list[Path]:
    """The known datasets below the current folder."""
    from dhm_cli.preparation.prepare import find_datasets

    found = find_datasets(Path(), out)
    for folder, layout in found:
        say(f"found {layout.title} in {folder}")
    if not found:
        say("no known dataset below this folder; to convert one elsewhere: dhm prepare FOLDER")
    return [folder for folder, _ in found]


def _convert(
    jobs: "list[tuple[Path, PrepareOptions]]",
    failed: "list[DhmError]",
    model: "FaceModel",
    out: Path,
    workers: int | None,
    profile: int,
    surface: Path | None,
) -> None:
    """Convert datasets one by one; one that cannot be converted does not stop the others."""
    from tqdm import tqdm

    from dhm_cli.errors import DhmError, InputError
    from dhm_cli.preparation.prepare import prepare_folder
    from dhm_cli.preparation.turned_views import load_surface, profile_store

    dense = load_surface(out, surface) if profile else None
    reports: list[PrepareReport] = []
    with tqdm(unit="face", smoothing=0.1, disable=None) as bar:
        progress = shown_on(bar)
        for folder, options in jobs:
            try:
                reports.append(prepare_folder(folder, model, out, options, progress, workers))
                if dense is None:
                    continue
                if "train" not in reports[-1].by_split:
                    say(f"{folder}: no training faces, so no views of them", err=True)
                else:
                    reports.append(profile_store(reports[-1].store, model, dense, profile, progress, workers))
            except KeyboardInterrupt:
                bar.close()
                say("stopped; the same command goes on from here", err=True)
                raise
            except DhmError as error:
                failed.append(error)
    if reports:
        _print_reports(reports)
    hint = "all else was converted; check its permissions and depth, then run the same command again"
    failed = [*failed, *(InputError(problem, hint) for report in reports for problem in report.unread)]
    for failure in failed[:-1]:
        say(f"error: {failure.message}\nhint: {failure.hint}", err=True)
    if failed:
        raise failed[-1]
    training = [report.store for report in reports if "train" in report.by_split]
    if training:
        say_next("dhm train --arch fast", *chain(*(("--data", store) for store in training)))
    elif reports:
        say_next("dhm evaluate --report report --data", reports[0].store)


def _print_reports(reports: "list[PrepareReport]") -> None:
    rows = []
    for r in reports:
        splits = ", ".join(f"{n} {count:,}" for n, count in r.by_split.items())
        cells = [str(r.folder), r.dataset, str(r.store), f"{r.faces:,}", splits, f"{r.residual['p50']:.2f} %"]
        rows.append([*cells, f"{len(r.dropped):,}"])
    print_table(("folder", "dataset", "store", "faces", "splits", "median residual", "left out"), rows)
    for r in reports:
        _print_findings(r.store.name, r.findings)
        for face, reason in r.dropped[:_LISTED]:
            say(f"left out: {face}: {reason}", indent="  ", err=True)
        if len(r.dropped) > _LISTED:
            more = f"{len(r.dropped) - _LISTED:,} more; all are in {r.store.with_name('report.json')}"
            say(f"left out: {more}", indent="  ", err=True)
        figures = r.figures
        speed = f"{r.store.name}: {figures['images_per_second']:,.0f} images/s"
        if "peak_memory_mb" in figures:
            speed += f", peak memory {figures['peak_memory_mb']:,.0f} MB"
        say(f"{speed}; pictures: {', '.join(str(p) for p in r.pictures)}", indent="  ")


def _print_findings(name: str, findings: "Sequence[Finding]") -> None:
    for finding in findings:
        names = f": {', '.join(finding.names[:_LISTED])}" if finding.names else ""
        more = ", ..." if len(finding.names) > _LISTED else ""
        say(f"{name}: {finding.severity}: {finding.message}{names}{more}", indent="  ")


def _show(path: Path, force: bool) -> None:
    from dhm_cli.preparation.inspection import show

    shown = show(path, force)
    broadest = max(len(what) for what, _ in shown.rows)
    say(shown.title)
    for what, value in shown.rows:
        say(f"{what.ljust(broadest)}  {value}", indent=" " * (broadest + 2))
    if shown.picture:
        say(f"picture: {shown.picture}", indent="  ")


def _check(path: Path) -> None:
    from tqdm import tqdm

    from dhm_cli.errors import FormatError
    from dhm_cli.preparation.inspection import check_store

    with tqdm(unit="face", disable=None) as bar:
        store, findings = check_store(path, shown_on(bar))
    _print_findings(path.name, findings)
    errors, warnings = (sum(f.severity == kind for f in findings) for kind in ("error", "warning"))
    if errors:
        raise FormatError(f"{path}: {errors} kind{'s' * (errors > 1)} of errors", "prepare it again")
    say(f"{path}: {len(store):,} faces, {warnings} warning{'s' * (warnings != 1)}, no errors")
