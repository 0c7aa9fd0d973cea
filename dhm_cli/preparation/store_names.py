"""Which store a dataset becomes: its layout, its name, and no two datasets in one store."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from dhm_cli.data.store import is_store
from dhm_cli.datasets.discovery import find_layout
from dhm_cli.datasets.layout import Layout
from dhm_cli.drawing.png_mark import is_our_png
from dhm_cli.errors import DhmError, InputError
from dhm_cli.morphable.location import FACE_MODEL
from dhm_cli.preparation import turned_views, worst_faces
from dhm_cli.preparation.options import PrepareOptions
from dhm_cli.preparation.report import REPORT, is_prepare_report
from dhm_cli.runtime.outputs import check_output


def layout_of(folder: Path, options: PrepareOptions) -> Layout:
    """The layout of a dataset, as the options name it or else as its folder shows it.

    Raises:
        InputError: see `find_layout`.
    """
    return find_layout(folder, options.format, tables=bool(options.points or options.prior))


def store_path(folder: Path, layout: Layout, out: Path, options: PrepareOptions) -> Path:
    """Where the store of a dataset goes: under the option's name, else the layout's, else the folder's.

    Raises:
        InputError: no file can have the name, or that of the face model has it.
    """
    name = options.name or layout.store or folder.resolve().name
    if name == Path(FACE_MODEL).stem or name != Path(name).name or name.startswith("."):
        raise InputError(
            f"{folder}: a store cannot be named {name}", "choose another with --name, a name without folders"
        )
    return out / f"{name}.h5"


def dataset_name(folder: Path, layout: Layout, options: PrepareOptions) -> str:
    """What to call a dataset: its published name where the layout is that of one, else the option's or the folder's."""
    return layout.title if layout.store else options.name or folder.resolve().name


def name_stores(
    folders: Sequence[Path],
    out: Path,
    options: PrepareOptions,
    rename: bool = False,
    profile: bool = False,
    inputs: Iterable[Path] = (),
    force: bool = False,
) -> tuple[list[tuple[Path, PrepareOptions]], list[DhmError]]:
    """See to it that every dataset gets a store of its own, and that neither it nor what comes with it destroys a file.

    Args:
        folders: the datasets.
        out: folder of the stores.
        options: for all of them.
        rename: give datasets of one name longer ones, instead of refusing them.
        profile: stores of views are made too.
        inputs: files that are read besides those of the options.
        force: replace files of another kind, though never an input.

    Returns:
        Each folder that can be converted with its options, and what is wrong with the others: no known dataset, or a
        store that another one writes, or an output that would destroy a file.

    Raises:
        InputError: one name for several datasets, or the report would destroy a file.
    """
    read = [*inputs, *options.inputs().values()]
    check_output(out / REPORT, "--out", "a report of dhm prepare", is_prepare_report, read, force)
    if options.name is not None and len(folders) > 1:
        raise InputError("--name needs exactly one folder", "run dhm prepare once per folder")
    jobs: dict[Path, tuple[Path, PrepareOptions]] = {}
    failed: list[DhmError] = []
    for folder in folders:
        try:
            own, path = options, store_path(folder, layout_of(folder, options), out, options)
        except DhmError as error:
            failed.append(error)
            continue
        if path in jobs and rename:
            names = (f"{path.stem}-{n}" for n in itertools.count(2))
            own = replace(options, name=next(name for name in names if out / f"{name}.h5" not in jobs))
            path = out / f"{own.name}.h5"
        if path in jobs:
            text = f"{folder}: would write one store, {path}, with {jobs[path][0]}"
            failed.append(InputError(text, "run them one by one, with --name"))
            continue
        try:
            _check_outputs(path, profile, read, force)
        except InputError as error:
            failed.append(error)
        else:
            jobs[path] = (folder, own)
    return list(jobs.values()), failed


def _check_outputs(store: Path, profile: bool, inputs: Sequence[Path], force: bool) -> None:
    """Refuse a store that would destroy a file, itself or by what comes with it."""
    stores, pictures = [store], [worst_faces.picture_of(store)]
    if profile:
        stores.append(turned_views.profile_path(store))
        pictures.append(turned_views.picture_of(stores[-1]))
    for path in stores:
        check_output(path, "--name or --out", "a store of dhm prepare", is_store, inputs, force)
    for path in pictures:
        check_output(path, "--name or --out", "a picture that dhm drew", is_our_png, inputs, force)
