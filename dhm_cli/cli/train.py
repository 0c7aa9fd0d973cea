"""`dhm train`."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    arch: Annotated[str, typer.Option(help="Architecture: fast or fast-x2.")] = "fast",
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="A store of dhm prepare, with a sampling weight if wanted: faces.h5 or faces.h5=0.5. Repeatable. "
            "Default: every store in data/.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run folder; default: runs/ARCH.", show_default=False)
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 40_000,
    batch: Annotated[int, typer.Option(min=2, help="Faces per step.")] = 64,
    learning_rate: Annotated[float, typer.Option(min=1e-9, help="Peak rate of AdamW.")] = 2e-3,
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between validations and saved states.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, data order and augmentation.")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; default: one per core.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the run folder.")] = False,
) -> None:
    """Train a network on stores of dhm prepare.

    Example: dhm train --arch fast --data data/faces.h5

    Validation uses the stores' split `val`; best.safetensors in the run folder is the best by the mean of the yaw bins.
    Ctrl-C saves the state; --resume continues exactly where the run stopped.
    """
    import torch
    from tqdm import tqdm

    from dhm_cli.config import TrainConfig
    from dhm_cli.models.registry import preset
    from dhm_cli.workflows.training import Trainer, TrainProgress, open_stores

    preset(arch)
    if threads:
        torch.set_num_threads(threads)
    out = out or Path("runs") / arch
    config = TrainConfig(
        steps=steps, batch=batch, learning_rate=learning_rate, validate_every=validate_every, seed=seed
    )
    trainer = Trainer(arch, open_stores(data), config, out, resume)
    with tqdm(total=steps, initial=trainer.step, unit="step", smoothing=0.05, disable=None) as bar:

        def show(progress: TrainProgress) -> None:
            bar.update(1)
            bar.set_postfix(loss=f"{progress.loss:.4f}", refresh=False)
            if progress.validation is not None:
                bins = "  ".join(f"{name} {value:.2f}" for name, value in progress.validation.items())
                bar.write(f"step {progress.step}: validation NME %  {bins}")

        try:
            trainer.run(show)
        except KeyboardInterrupt:
            bar.close()
            typer.echo(f"stopped at step {trainer.step}; continue with: the same command and --resume", err=True)
            raise
    typer.echo(f"best network: {out / 'best.safetensors'}; for dhm align: dhm export {out / 'best.safetensors'}")
