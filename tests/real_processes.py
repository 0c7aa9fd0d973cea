"""Real processes with real signals, forked from a server that has loaded torch and the trainer: it takes seconds."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
from places import ROOT, TESTS

# Of a machine that is busy with other things.
PATIENCE = 240
_LOADED = ["two_processes", "torch._dynamo", "torch.distributed.run", "matplotlib.figure", "tqdm"]


class RealProcess:
    """A process that prints into files.

    Args:
        folder: for the files, which are there as long as the process is looked at.
        target: a function of an importable module; its SystemExit is the exit code.
        arguments: of the function.
        environment: variables beside those of this process.
    """

    def __init__(self, folder: Path, target: Callable[..., None], *arguments: Any, **environment: str) -> None:
        self._files = [folder / "stdout.txt", folder / "stderr.txt"]
        kind = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
        if sys.platform != "win32":
            kind.set_forkserver_preload(_LOADED)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(TESTS)]))
                patch.setenv("OMP_NUM_THREADS", "1")
                forkserver.ensure_running()  # for all processes that come
        self._process = kind.Process(target=_run, args=(self._files, environment, target, arguments))
        self._process.start()

    @property
    def pid(self) -> int:
        """Number of the process, and of the group that it and its workers form."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.is_alive()

    def result(self) -> tuple[int | None, str, str]:
        """Wait for the end: exit code (None where it does not come), what was printed, and the errors."""
        self._process.join(PATIENCE)
        printed, errors = (path.read_text(encoding="utf-8") for path in self._files)
        return self._process.exitcode, printed, errors

    def end(self) -> None:
        """Kill what is left."""
        self._process.kill()
        self._process.join()


def _run(files: list[Path], environment: dict[str, str], target: Callable[..., None], arguments: list[Any]) -> None:
    if sys.platform != "win32":
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    os.environ.update(environment)
    for number, path in enumerate(files, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    target(*arguments)


@contextmanager
def running(*processes: RealProcess) -> Iterator[None]:
    """No process is left over."""
    try:
        yield
    finally:
        for process in processes:
            process.end()


def dhm(*arguments: str) -> None:
    """The command, in a process of its own."""
    from dhm_cli.cli.main import main

    sys.argv = ["dhm", *arguments]
    main()


def torchrun(*arguments: str) -> None:
    """The command, in a process of its own."""
    from torch.distributed.run import main

    main(list(arguments))
