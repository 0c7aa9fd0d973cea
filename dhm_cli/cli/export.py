"""`dhm export`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dhm_cli.errors import InputError


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A network of dhm train, .safetensors.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The ONNX file, or .safetensors for a copy of the checkpoint; default: .onnx beside the checkpoint.",
            show_default=False,
        ),
    ] = None,
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
    """Export a trained network to ONNX, with its pre-processing inside, for dhm align --weights.

    Example: dhm export runs/fast/best.safetensors --out fast.onnx

    Batch norm, the constant heat map and the mean shape are folded into the weights, and the file is compared with the
    checkpoint before it is kept.

    Networks that regress the parameters of a face model (dhm, dhm-vgg, rhg and 3dcnn without --target landmarks) stay
    .safetensors: an ONNX file would hold the face model, and its licence forbids to pass that on.
    """
    from dhm_cli.export.export import export_checkpoint, export_onnx

    if not checkpoint.is_file():
        raise InputError(f"{checkpoint}: no such checkpoint", "train one with: dhm train --arch fast")
    target = out or checkpoint.with_suffix(".onnx")
    if target.is_dir() or target.resolve() == checkpoint.resolve():
        what = "a folder" if target.is_dir() else "the checkpoint itself"
        raise InputError(f"--out {target}: is {what}", "choose another file")
    if target.suffix.lower() == ".safetensors":
        if data is not None:
            raise InputError("--data compares ONNX files", "leave it out, or choose a file name that ends in .onnx")
        report = export_checkpoint(checkpoint, target, precision)
        agreement = ""
    else:
        report = export_onnx(checkpoint, target, precision, data)
        agreement = f", landmarks within {report.apart:.2g} pixels of the checkpoint's"
    typer.echo(f"wrote {target} ({report.size / 1e6:.2f} MB, {precision}){agreement}")
    if report.before and report.after:
        for name, nme in (("checkpoint", report.before), ("file", report.after)):
            numbers = "  ".join(f"{bin_name} {value:.3f}" for bin_name, value in nme.items())
            typer.echo(f"NME %, {name:10}  {numbers}")
