"""Folders that tests read."""

import os
from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
SAMPLE_DATA = ROOT / "sample_data"
# Real data, research only and never a part of the project; tests that need it skip themselves where it is absent.
SHARED_DATA = Path(os.environ.get("DHM_SHARED_DATA", ROOT.parent / "shared" / "data"))
