"""What stands in several places of the package stands there alike."""

import tomlkit
from places import ROOT

from dhm_cli import __version__

PROJECT = tomlkit.parse((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_citation_is_of_this_version() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / ".citation.cff").read_text(encoding="utf-8")


def test_pinned_versions_are_of_packages_that_are_asked_for() -> None:
    """A dependency that is gone leaves its pin behind, a new one would be installed in any version."""
    pinned = {line.split("==")[0] for line in (ROOT / ".ci" / "constraints.txt").read_text().splitlines()}
    asked = {line.split(">=")[0] for line in PROJECT["dependencies"]}
    assert asked <= pinned


def test_licences_go_with_what_they_are_of() -> None:
    files = {path for pattern in PROJECT["license-files"] for path in ROOT.glob(str(pattern))}
    assert ROOT / "dhm_cli" / "weights" / "face_detection_yunet_2023mar.LICENSE.txt" in files
    assert ROOT / "dhm_cli" / "dense" / "ict_face.LICENSE.txt" in files
