"""Work in processes of their own."""

import operator
import os
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from dhm_cli.errors import DhmError
from dhm_cli.runtime.processes import Processes
from dhm_cli.runtime.threads import in_order


def test_results_come_in_order_from_several_processes() -> None:
    with closing(Processes(operator.neg, 2)) as processes:
        assert list(in_order(processes, range(20), 2)) == [-k for k in range(20)]
        numbers = [process.pid for process in processes._all]
    assert len(set(numbers)) == 2
    for number in numbers:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


def test_processes_import_from_where_this_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from the working folder, nor from the folder of dhm before the standard library."""
    (tmp_path / "pickle.py").write_text("raise ImportError('the pickle.py of the working folder')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    with closing(Processes(eval, 1)) as processes:
        assert processes("__import__('sys').path") == sys.path


def test_a_process_that_is_gone_is_told_of() -> None:
    with closing(Processes(os._exit, 1)) as processes, pytest.raises(DhmError, match="ended with code 3"):
        processes(3)


def test_a_process_ends_when_it_is_asked_no_more() -> None:
    """As when the process that asks is killed: nothing but the end of its input says so."""
    with closing(Processes(time.sleep, 1)) as processes:
        (process,) = processes._all
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0
