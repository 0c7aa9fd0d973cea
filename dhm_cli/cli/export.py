"""`dhm export`."""

from pathlib import Path
from typing import Annotated

import typer


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
    half: Annotated[
        bool, typer.Option("--half", help="Store the weights as float16: half the size, arithmetic still float32.")
    ] = False,
) -> None:
    """Export a trained network to ONNX, with its pre-processing inside, for dhm align --weights.

    Example: dhm export runs/fast/best.safetensors --out fast.onnx

    Networks that regress the parameters of a face model (dhm, dhm-vgg, rhg and 3dcnn without --target landmarks) stay
    .safetensors: an ONNX file would hold the face model, and its licence forbids to pass that on.

    Needs the packages onnx and onnxscript, which the extra `export` of this package brings.
    """
    from dhm_cli.errors import DhmError

    try:
        from dhm_cli.workflows.export import export_checkpoint, export_onnx
    except ModuleNotFoundError as error:
        raise DhmError(f"dhm export needs {error.name}", "pip install onnx onnxscript") from error

    target = out or checkpoint.with_suffix(".onnx")
    write = export_checkpoint if target.suffix == ".safetensors" else export_onnx
    write(checkpoint, target, half)
    typer.echo(f"wrote {target} ({target.stat().st_size / 1e6:.2f} MB)")
