"""`dhm train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dhm_cli.cli.guides import say_next
from dhm_cli.cli.lines import say
from dhm_cli.cli.tables import print_table
from dhm_cli.config.networks import DhmConfig, FastDhmConfig
from dhm_cli.config.run import RunSettings, resolve
from dhm_cli.config.settings import Settings
from dhm_cli.config.training import TrainConfig

if TYPE_CHECKING:
    from dhm_cli.training.distributed import Processes
    from dhm_cli.training.trainer import RunOptions, TrainProgress

# Fig. 6a of Sun et al. 2018: the whole, without recurrence, without 3D heat maps.
_ABLATION = ("dhm", "3dcnn", "2drnn")
# Longer lists of values would be broken within a name where the help stands in 80 columns.
_BROADEST = 22
_RUN, _NETWORK, _TRAINING, _MACHINE = "Run", "Network", "Training", "Machine"


def _setting(settings: type[Settings], name: str, panel: str | None = None, help: str = "") -> Any:
    """The flag of a setting: its help, and completion where it is one of a few names, come from its declaration.

    The names are no `Literal`: what is none of them is refused with the setting's own message.
    """
    choices = settings.rules()[name].choices
    sentence, metavar = help or settings.sentences()[name], f"[{'|'.join(choices)}]" if choices else None
    if metavar and len(metavar) > _BROADEST:
        sentence, metavar = f"{sentence} One of {', '.join(choices)}.", "<name>"
    return typer.Option(
        help=sentence,
        metavar=metavar,
        autocompletion=(lambda incomplete: [c for c in choices if c.startswith(incomplete)]) if choices else None,
        show_default=False,
        rich_help_panel=panel,
    )


def train(
    arch: Annotated[
        str | None,
        _setting(RunSettings, "arch", help="Architecture. Default: fast, or the settings file's.", panel=_RUN),
    ] = None,
    recipe: Annotated[str | None, _setting(RunSettings, "recipe", panel=_RUN)] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Settings file, such as config.toml of a run folder. Flags go before it.",
            show_default=False,
            rich_help_panel=_RUN,
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="A store of dhm prepare, with a sampling weight if wanted: faces.h5 or faces.h5=0.5. Repeatable. "
            "Default: every store in data/.",
            show_default=False,
            rich_help_panel=_RUN,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Run folder; default: runs/ARCH.", show_default=False, rich_help_panel=_RUN),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the run folder.", rich_help_panel=_RUN)
    ] = False,
    keep: Annotated[
        int, typer.Option(min=0, help="Numbered checkpoints to keep beside best and last.", rich_help_panel=_RUN)
    ] = 3,
    init: Annotated[
        Path | None,
        typer.Option(help="Checkpoint to start from.", show_default=False, rich_help_panel=_RUN),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint of a larger network whose landmarks are learned too.",
            show_default=False,
            rich_help_panel=_RUN,
        ),
    ] = None,
    face_model: Annotated[
        Path | None,
        typer.Option(
            help="Face model of networks that regress p; default: face_model.h5 beside the first store.",
            show_default=False,
            rich_help_panel=_RUN,
        ),
    ] = None,
    not_faces: Annotated[
        Path | None,
        typer.Option(
            help="Folder of pictures without a face, for networks that tell their confidence.",
            show_default=False,
            rich_help_panel=_RUN,
        ),
    ] = None,
    ablation: Annotated[
        bool,
        typer.Option(
            "--ablation",
            help="Train dhm, 3dcnn and 2drnn alike, one after the other, and compare them (Fig. 6a of the DHM paper). "
            "Continues where it was stopped.",
            rich_help_panel=_RUN,
        ),
    ] = False,
    target: Annotated[str | None, _setting(DhmConfig, "target", _NETWORK)] = None,
    input_size: Annotated[int | None, _setting(DhmConfig, "input_size", _NETWORK)] = None,
    cnn_width: Annotated[float | None, _setting(FastDhmConfig, "cnn_width", _NETWORK)] = None,
    recurrent_width: Annotated[float | None, _setting(FastDhmConfig, "recurrent_width", _NETWORK)] = None,
    epochs: Annotated[float | None, _setting(TrainConfig, "epochs", _TRAINING)] = None,
    steps: Annotated[int | None, _setting(TrainConfig, "steps", _TRAINING)] = None,
    batch: Annotated[int | None, _setting(TrainConfig, "batch", _TRAINING)] = None,
    learning_rate: Annotated[float | None, _setting(TrainConfig, "learning_rate", _TRAINING)] = None,
    validate_every: Annotated[int | None, _setting(TrainConfig, "validate_every", _TRAINING)] = None,
    precision: Annotated[str | None, _setting(TrainConfig, "precision", _TRAINING)] = None,
    seed: Annotated[int | None, _setting(TrainConfig, "seed", _TRAINING)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=_MACHINE)] = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Processes that make batches, for each that trains; default: 1, or on GPUs one per core in all.",
            show_default=False,
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="CPU threads of each process; default: one per core, or OMP_NUM_THREADS, which torchrun sets to 1.",
            show_default=False,
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Compile the network with torch.compile.", rich_help_panel=_MACHINE)
    ] = False,
) -> None:
    """Train a network on stores of dhm prepare.

    Validation uses the stores' split `val`, never `test`; best.safetensors in the run folder is the best by the mean of
    the yaw bins. Ctrl-C saves the state; --resume continues exactly where the run stopped.
    """
    if ablation and (arch or init):
        raise typer.BadParameter("--ablation trains architectures of its own: leave out --arch and --init")

    from dhm_cli.runtime.interruption import deferred_interrupts

    with (
        deferred_interrupts() as interrupted
    ):  # Ctrl-C within the imports of numpy and torch would leave them half done
        import torch

        from dhm_cli.config.toml import read_toml
        from dhm_cli.runtime.threads import available_cores
        from dhm_cli.training.distributed import joined_processes, may_be_restarted
        from dhm_cli.training.run_folder import RunFolder
        from dhm_cli.training.trainer import RunOptions
    if interrupted.is_set():
        raise KeyboardInterrupt
    if threads:
        torch.set_num_threads(threads)
    flags = {
        **{"data": data, "target": target, "input_size": input_size, "cnn_width": cnn_width},
        **{"recurrent_width": recurrent_width, "epochs": epochs, "steps": steps, "batch": batch},
        **{"learning_rate": learning_rate, "validate_every": validate_every, "precision": precision, "seed": seed},
    }

    def settings_of(arch: str | None, folder: Path) -> RunSettings:
        of_run = RunFolder(folder).config
        file = config or (of_run if resume and of_run.exists() else None)
        return resolve(arch, recipe, read_toml(file) if file else None, flags, str(file))

    with joined_processes(device) as processes:
        if workers is None:
            workers = max(1, available_cores() // processes.neighbours) if processes.device.type == "cuda" else 1
        options = RunOptions(workers, compile_, keep, init, teacher, face_model, not_faces)
        if ablation:
            _train_ablation(settings_of, out or Path("runs") / "ablation", options, processes)
            return
        settings = settings_of(arch, out or Path("runs") / (arch or "fast"))
        folder = out or Path("runs") / settings.arch
        goes_on = resume or (may_be_restarted() and RunFolder(folder).state.exists())
        _train_one(settings, folder, options, processes, goes_on)


def _train_one(settings: RunSettings, out: Path, options: "RunOptions", processes: "Processes", resume: bool) -> None:
    from tqdm import tqdm

    from dhm_cli.training.inputs import open_stores
    from dhm_cli.training.run_folder import RunFolder
    from dhm_cli.training.trainer import Trainer

    stores = open_stores(settings.data)
    trainer = Trainer(settings, stores, out, options, processes, resume)
    if processes.is_main:
        for warning in trainer.warnings:
            say(f"warning: {warning}", "  ", err=True)
        say(f"{settings.arch}: {trainer.description}", "  ")
    with tqdm(
        total=trainer.steps,
        initial=trainer.step,
        unit="step",
        smoothing=0.05,
        disable=None if processes.is_main else True,
    ) as bar:

        def show(progress: "TrainProgress") -> None:
            bar.update(1)
            speed = {"faces/s": f"{progress.samples_per_second:.0f}", "waiting": f"{progress.waiting:.0%}"}
            bar.set_postfix(loss=f"{progress.loss:.4f}", **speed, refresh=False)
            if progress.validation is not None and processes.is_main:
                bins = "  ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in progress.validation.items())
                bar.write(f"step {progress.step}: validation NME %\n  {bins}")

        try:
            trainer.run(show)
        except KeyboardInterrupt:
            bar.close()
            if processes.is_main:
                say(f"stopped at step {trainer.step}; continue with: the same command and --resume", "  ", err=True)
            raise
    if processes.is_main:
        best = RunFolder(out).best
        typer.echo(f"best network: {best}")
        say_next("dhm evaluate --model", best, "--data", stores[0][0].path)
        if not settings.network.needs_face_model:
            say_next("dhm export --model", best)


def _train_ablation(settings_of: Any, out: Path, options: "RunOptions", processes: "Processes") -> None:
    from dhm_cli.training.ablation import compare_runs
    from dhm_cli.training.run_folder import RunFolder

    for arch in _ABLATION:
        folder = out / arch
        _train_one(settings_of(arch, folder), folder, options, processes, RunFolder(folder).state.exists())
    if processes.is_main:
        rows = compare_runs({arch: out / arch for arch in _ABLATION}, out)["rows"]
        names = [name for name, value in rows[0].items() if isinstance(value, float)]
        heads = [name.replace("_of_", " of\n").replace("_", " ") for name in names]
        print_table(["NME %", *heads], [[row["run"], *(f"{row[name]:.2f}" for name in names)] for row in rows])
        typer.echo(f"comparison: {out / 'ced.png'} and {out / 'comparison.csv'}")
