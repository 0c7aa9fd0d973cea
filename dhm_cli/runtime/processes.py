"""Work in processes of their own, which share no interpreter: threads of one take turns in all that is Python."""

import os
import pickle
import queue
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from dhm_cli.errors import DhmError
from dhm_cli.runtime.memory import keep_freed_memory
from dhm_cli.runtime.threads import single_threaded_opencv

T = TypeVar("T")
Item = TypeVar("Item")

_SERVE = "from dhm_cli.runtime.processes import serve\nserve()"


class Processes(Generic[Item, T]):
    """A function that works in processes: call it from as many threads as there are processes.

    They are new interpreters and not forks, which libraries with threads do not stand, and import nothing of the
    user's script. They end when this process does, whatever ends it.

    Args:
        work: a picklable function; each process has a copy of its own. What it prints goes to standard error.
        count: of processes.
    """

    def __init__(self, work: Callable[[Item], T], count: int) -> None:
        self._free: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        command, pipe = child_command(_SERVE), subprocess.PIPE
        self._all = [  # in sessions of their own: Ctrl-C is for this process, which then ends them
            subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True) for _ in range(count)
        ]
        for process in self._all:
            self._send(process, work)
            self._free.put(process)

    def __call__(self, item: Item) -> T:
        """What the function makes of an item.

        Raises:
            DhmError: the process is gone.
        """
        process = self._free.get()
        try:
            self._send(process, item)
            assert process.stdout is not None
            result: T = pickle.load(process.stdout)
        except (EOFError, pickle.UnpicklingError) as error:
            raise _gone(process) from error
        finally:
            self._free.put(process)
        return result

    @staticmethod
    def _send(process: "subprocess.Popen[bytes]", what: Any) -> None:
        assert process.stdin is not None
        try:
            pickle.dump(what, process.stdin, pickle.HIGHEST_PROTOCOL)
            process.stdin.flush()
        except OSError as error:
            raise _gone(process) from error

    def close(self) -> None:
        """End the processes; none may be at work."""
        for process in self._all:
            assert process.stdin is not None
            assert process.stdout is not None
            with suppress(OSError):  # what was not sent cannot be sent now
                process.stdin.close()  # at its end they end
            process.stdout.close()
        for process in self._all:
            process.wait()


def _gone(process: "subprocess.Popen[bytes]") -> DhmError:
    return DhmError(
        f"a process of this run ended with code {process.wait()}",
        "if memory ran out, pass fewer --threads; go on with --resume",
    )


def serve() -> None:
    """Be one of `Processes`: work for what comes on standard input until that ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    keep_freed_memory()
    with single_threaded_opencv(), suppress(EOFError, BrokenPipeError):  # the process that asks is gone, or has enough
        work = pickle.load(sys.stdin.buffer)
        while True:
            pickle.dump(work(pickle.load(sys.stdin.buffer)), answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()


def child_command(code: str, *arguments: str) -> list[str]:
    """The command of a new interpreter for code that may use `sys`, with its arguments in `sys.argv[1:]`.

    Its modules come from where this process has them: the working folder, which `-c` puts first, may hold a random.py.
    """
    return [sys.executable, "-c", f"import sys\nsys.path[:] = {[*map(str, sys.path)]}\n{code}", *arguments]
