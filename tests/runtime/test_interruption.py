"""Ctrl-C and SIGTERM become an event while a training runs, and are themselves again afterwards."""

import signal
import threading

import pytest

from dhm_cli.runtime.interruption import deferred_interrupts

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_sets_the_event_and_raises_nothing(number: signal.Signals) -> None:
    with deferred_interrupts() as event:
        assert not event.is_set()
        signal.raise_signal(number)
        assert event.is_set()
        signal.raise_signal(number)  # nor does an impatient second one


def test_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with deferred_interrupts():
        assert all(signal.getsignal(n) is not b for n, b in zip(SIGNALS, before, strict=True))
    assert [signal.getsignal(number) for number in SIGNALS] == before
    with pytest.raises(ZeroDivisionError), deferred_interrupts():
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_second_run_starts_anew() -> None:
    with deferred_interrupts():
        signal.raise_signal(signal.SIGINT)
    with deferred_interrupts() as event:
        assert not event.is_set()


def test_a_background_job_with_ctrl_c_ignored_can_be_stopped() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred_interrupts() as event:
            signal.raise_signal(signal.SIGINT)
            assert event.is_set()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_it_does_nothing() -> None:
    """Only the main thread may set handlers."""
    before, seen = [signal.getsignal(number) for number in SIGNALS], []

    def run() -> None:
        with deferred_interrupts() as event:
            seen.append((event.is_set(), [signal.getsignal(number) for number in SIGNALS]))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
