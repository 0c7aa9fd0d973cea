"""What is printed is whole at 80 columns."""

import pytest

from dhm_cli.cli.lines import printable, wrapped
from dhm_cli.cli.tables import print_table

HEADERS = ["network", "NME\n0-30", "mean of\nbins"]


def test_a_table_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(HEADERS, [["fast", "2.11", "2.33"], ["fast-x2", "12.01", "2.22"]], title="NME in %", sections=[0])
    assert capsys.readouterr().out == (
        "NME in %\n"
        "           NME  mean of\n"
        "network   0-30     bins\n"
        "-------  -----  -------\n"
        "fast      2.11     2.33\n"
        "-------  -----  -------\n"
        "fast-x2  12.01     2.22\n"
    )


def test_rows_too_wide_stand_one_below_the_other_and_nothing_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a folder with a long name/" * 4 + "faces.h5"
    print_table(HEADERS, [[name, "2.11", ""], ["b.h5", "3.00", "4.00"]])
    assert capsys.readouterr().out == (
        f"network: {name}\n  NME 0-30      2.11\nnetwork: b.h5\n  NME 0-30      3.00\n  mean of bins  4.00\n"
    )


def test_a_name_cannot_act_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["name", "n"], [["\x1b[31mred\x1b[0m\r\x07", "1"]])
    assert "\\x1b[31mred\\x1b[0m\\r\\x07  1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Köln 東京 faces/a b.jpg", "Köln 東京 faces/a b.jpg"),
        ("two\nlines", "two\nlines"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("gpj\u202e.exe", "gpj\\u202e.exe"),
        ("K\udcf6ln", "K\\xf6ln"),
        ("a\tb\x85", "a\\tb\\x85"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_sentences_break_between_words_only() -> None:
    name = "x" * 100 + "-y.jpg"
    text = wrapped("one two " * 15 + name + " is 1,234.5 px off", indent="  ")
    assert name in text.split()
    assert max(len(line) for line in text.split("\n") if name not in line) <= 80
    assert all(line.startswith("  ") for line in text.split("\n")[1:])


def test_commands_stay_whole() -> None:
    text = "run it: dhm align --weights runs/dhm/best.safetensors a.jpg, or train again with --target landmarks then"
    assert wrapped(text, indent="      ", start="hint: ") == (
        "hint: run it: dhm align --weights runs/dhm/best.safetensors a.jpg, or train\n"
        "      again with --target landmarks then"
    )
    assert wrapped(text[:60], start="a start that leaves no room: ").startswith(
        "a start that leaves no room: run it:\ndhm align"
    )
    numbers = wrapped("at a rate of 0.1 " * 20)
    assert max(map(len, numbers.split("\n"))) <= 80


def test_a_list_without_blanks_is_broken_at_its_commas() -> None:
    """A message of ONNX Runtime made a line of 170 characters."""
    text = wrapped("error: index=0," + ",".join(f"tensor(float{k})" for k in range(30)))
    assert max(map(len, text.split("\n"))) <= 80
    assert "tensor(float17)," in text.split()
    path = "/" + "a" * 50 + "/c,jpg" + "b" * 50
    assert wrapped(path) == path
