"""`dhm export`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dhm_cli.cli.guides import say_next
from dhm_cli.cli.lines import say
from dhm_cli.cli.tables import print_table
from dhm_cli.errors import InputError


def export(
    model: Annotated[
        Path | None, typer.Option(help="The network, a checkpoint of dhm train, .safetensors.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The ONNX file, or .safetensors for a copy of the checkpoint; - writes ONNX to standard output. "
            "Default: .onnx beside the checkpoint.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that dhm export did not write.")] = False,
    precision: Annotated[
        Literal["float32", "float16", "int8"],
        typer.Option(
            help="float16: weights of half the size, arithmetic still float32. int8: 8-bit arithmetic in the separable "
            "blocks of fast and fast-x2; faster on processors with VNNI; needs --data."
        ),
    ] = "float32",
    data: Annotated[
        Path | None,
        typer.Option(
            help="A store of dhm prepare: compare the NME of the file with the checkpoint's on its val faces, and "
            "refuse a precision that worsens it by more than 0.05.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Export a trained network to ONNX, with its pre-processing inside, for dhm align --model.

    Batch norm, the constant heat map and the mean shape are folded into the weights, and the file is compared with the
    checkpoint before it is kept.

    Networks that regress the parameters of a face model (dhm, dhm-vgg, rhg and 3dcnn without --target landmarks) stay
    .safetensors: an ONNX file would hold the face model, and its licence forbids to pass that on.
    """
    if model is None:
        raise InputError("dhm export: no network named", "pass --model FILE, such as runs/fast/best.safetensors")
    if not model.is_file():
        raise InputError(f"{model}: no such checkpoint", "train one with: dhm train --arch fast")
    target = out or model.with_suffix(".onnx")

    from dhm_cli.runtime.outputs import STDOUT, check_output, is_stream

    copied = target.suffix.lower() == ".safetensors"
    if not copied and target.suffix.lower() != ".onnx" and not is_stream(target) and not target.is_dir():
        raise InputError(f"--out {target}: cannot be told by its ending", "known are .onnx and .safetensors")
    if copied and data is not None:
        raise InputError("--data compares ONNX files", "leave it out, or choose a file name that ends in .onnx")

    from dhm_cli.export.export import export_checkpoint, export_onnx, is_network_of_dhm

    inputs = [path for path in (model, data) if path is not None]
    check_output(target, "--out", "a network that dhm wrote", is_network_of_dhm, inputs, force)
    report = export_checkpoint(model, target, precision) if copied else export_onnx(model, target, precision, data)
    to_stdout = target == STDOUT
    agreement = "" if copied else f", landmarks within {report.apart:.2g} pixels of the checkpoint's"
    where = "to standard output" if to_stdout else str(target)
    say(f"wrote {where} ({report.size / 1e6:.2f} MB, {precision}){agreement}", err=to_stdout)
    if report.before and report.after:
        bins = list(report.before)
        rows = [
            [name, *(f"{nme[bin_name]:.3f}" for bin_name in bins)]
            for name, nme in (("checkpoint", report.before), ("file", report.after))
        ]
        print_table(["NME %", *(name.replace("_", " ") for name in bins)], rows, err=to_stdout)
    if not to_stdout:
        say_next("dhm align photos --model", target)
