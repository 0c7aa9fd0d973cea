"""`dhm prepare`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

# Dropped faces listed by name.
_LISTED = 5


def prepare(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of face images with .pts files, or points in --points.", show_default=False),
    ] = None,
    bfm: Annotated[
        Path | None,
        typer.Option(help="Face model to convert and fit, a 3DDFA-style .mat file.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for face_model.h5 and the stores.")] = Path("data"),
    name: Annotated[
        str | None,
        typer.Option(help="Name of the store, for one folder; default: the folder's name.", show_default=False),
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option(
            help="Human points where there is no .pts file: .npz with names (N,) and an array (N, 68, 2) or, in AFLW's "
            "scheme, (N, 21, 2); 0-based pixels, NaN where not labelled.",
            show_default=False,
        ),
    ] = None,
    prior: Annotated[
        Path | None,
        typer.Option(
            help="Approximate points of another method, .npz as above, (N, 68, 2); trusted little.",
            show_default=False,
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="CSV with name and, if known, split (train, val) and identity.", show_default=False),
    ] = None,
    split: Annotated[
        Literal["train", "val", "test", "auto"],
        typer.Option(help="Split of faces not in --table; auto: 5 % validation, by identity."),
    ] = "auto",
    max_residual: Annotated[
        float, typer.Option(help="Leave out training faces whose fit is worse, percent of the face size.")
    ] = 4.0,
) -> None:
    """Convert a face model, and folders of annotated faces, to HDF5 with fitted 3DMM parameters.

    Example: dhm prepare faces --bfm BFM.mat

    Landmark files (.pts) are 1-based and carry the signs of MERL-RAV: both coordinates negative is occluded, exactly
    -1 -1 not labelled. The far-side jaw of turned faces is not fitted: human points follow the silhouette there.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table
    from tqdm import tqdm

    from dhm_cli.errors import InputError
    from dhm_cli.morphable.face_model import FaceModel
    from dhm_cli.workflows.preparation import (
        PrepareOptions,
        PrepareReport,
        prepare_face_model,
        prepare_folder,
        store_path,
    )

    if name is not None and len(folders or []) != 1:
        raise InputError("--name needs exactly one folder", "run dhm prepare once per folder")
    options = PrepareOptions(points, prior, table, split, max_residual, name)
    targets = [store_path(folder, out, options) for folder in folders or []]
    if len(set(targets)) < len(targets):
        raise InputError("two folders of one name would write one store", "run them one by one, with --name")
    if bfm is not None:
        model = prepare_face_model(bfm, out)
        typer.echo(f"wrote {out / 'face_model.h5'} ({bfm.name}, {model.hash()})")
    elif folders:
        model = FaceModel.load(out / "face_model.h5")
    else:
        raise InputError("nothing to do", "give a face model with --bfm BFM.mat, and folders of faces")

    reports: list[PrepareReport] = []
    for folder in folders or []:
        with tqdm(unit="face", smoothing=0.1, disable=None) as bar:

            def show(stage: str, done: int, total: int, bar: tqdm = bar) -> None:  # type: ignore[type-arg]
                if done == 0:
                    bar.reset(total)
                    bar.set_description(stage)
                bar.update(done - bar.n)

            reports.append(prepare_folder(folder, model, out, options, show))
    if not reports:
        return
    summary = Table()
    for column in ("folder", "store", "faces", "splits", "median residual", "left out"):
        summary.add_column(column, overflow="fold")
    for r in reports:
        splits = ", ".join(f"{n} {s}" for s, n in r.by_split.items())
        summary.add_row(
            escape(str(r.folder)),
            escape(str(r.store)),
            str(r.faces),
            splits,
            f"{r.median_residual:.2f} %",
            str(len(r.dropped)),
        )
    Console().print(summary)
    for r in reports:
        for face, reason in r.dropped[:_LISTED]:
            typer.echo(f"left out: {face}: {reason}", err=True)
        if len(r.dropped) > _LISTED:
            typer.echo(f"left out: {len(r.dropped) - _LISTED} more from {r.folder}", err=True)
