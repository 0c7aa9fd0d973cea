"""Ctrl-C and SIGTERM: while a command starts, while it works, and during a training."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

INTERRUPTED = 130


@contextmanager
def deferred_interrupts() -> Iterator[threading.Event]:
    """Turn SIGINT and SIGTERM into an event, so that a step is never cut in two."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: event.set()) for number in signals]
    try:
        yield event
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def exit_when_interrupted() -> None:
    """Have Ctrl-C end this process at once, with one word and exit code 130, as long as there is nothing to clean up.

    Where SIGINT is ignored, as in a shell's background, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)


@contextmanager
def whole_imports() -> Iterator[None]:
    """Have Ctrl-C raise KeyboardInterrupt again, but not within an import, which would leave libraries half loaded.

    Only where `exit_when_interrupted` was called before.
    """
    if signal.getsignal(signal.SIGINT) is not _exit:
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, _exit)


def _exit(number: int, frame: FrameType | None) -> None:
    with suppress(Exception):
        sys.stdout.flush()
    with suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


def _interrupt(number: int, frame: FrameType | None) -> None:
    importer = _importer(frame)
    if importer is None:
        raise KeyboardInterrupt
    # Told again when the import is over: at the next line of the code that asked for it.
    importer.f_trace = _interrupt_here
    sys.settrace(_trace_nothing)


def _importer(frame: FrameType | None) -> FrameType | None:
    """The frame that waits for the outermost import, if there is one."""
    importer, within = None, False
    while frame is not None:
        of_import = frame.f_code.co_filename.startswith("<frozen importlib")
        if within and not of_import:
            importer = frame
        within, frame = of_import, frame.f_back
    return importer


def _interrupt_here(frame: FrameType, event: str, argument: object) -> None:
    sys.settrace(None)
    frame.f_trace = None
    raise KeyboardInterrupt


def _trace_nothing(frame: FrameType, event: str, argument: object) -> None:
    """Follow no new frame; only with a trace function set are the frames asked that have one of their own."""
