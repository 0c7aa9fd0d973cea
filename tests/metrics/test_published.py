"""Published rows, as printed, and their slips."""

import pytest

from dhm_cli.metrics.published import published_results


def test_rows_of_the_papers() -> None:
    found = published_results(False, "other faces")
    assert (found["comparable"], found["why_not"]) == (False, "other faces")
    rows = {row["name"]: row for row in found["rows"]}
    assert len(rows) == len(found["rows"]) == 15
    assert rows["DHM"]["original"] == [2.75, 4.21, 6.91, 4.62]
    assert rows["DHM+RHG"]["reannotated"] == [2.25, 3.05, 4.21, 3.17]
    assert (rows["Fast DHM"]["cpu_fps"], rows["Fast DHM"]["gpu_fps"], rows["Fast DHM"]["size_mb"]) == (
        "81",
        ">900",
        0.9,
    )
    assert all(row["source"] in found["sources"] and row["citation"] for row in rows.values())


def test_every_mean_that_is_not_that_of_its_bins_is_said_to_be_so() -> None:
    found = published_results(True)
    wrong = set()
    for row in found["rows"]:
        for labels in ("original", "reannotated"):
            if row[labels] is not None:
                *bins, mean = row[labels]
                if mean != pytest.approx(sum(bins) / 3, abs=0.0151):
                    wrong.add(row["name"])
                    assert "not that of the bins" in row["remark"]
    assert wrong == {"DHM+RHG", "Hyperface", "MDM", "ERT"}
    slips = " ".join(found["slips"])
    assert all(name in slips for name in (*wrong, "DHM", "3DFAN"))
