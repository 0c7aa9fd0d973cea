"""`dhm export`."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A network of dhm train, .safetensors.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The ONNX file; default: beside the checkpoint.", show_default=False),
    ] = None,
) -> None:
    """Export a trained network to ONNX, with its pre-processing inside, for dhm align --weights.

    Example: dhm export runs/fast/best.safetensors --out fast.onnx

    Needs the packages onnx and onnxscript, which the extra `export` of this package brings.
    """
    from dhm_cli.errors import DhmError

    try:
        from dhm_cli.workflows.export import export_onnx
    except ModuleNotFoundError as error:
        raise DhmError(f"dhm export needs {error.name}", "pip install onnx onnxscript") from error

    target = out or checkpoint.with_suffix(".onnx")
    export_onnx(checkpoint, target)
    typer.echo(f"wrote {target} ({target.stat().st_size / 1e6:.2f} MB)")
