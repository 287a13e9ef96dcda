"""The trials that `benchmarks/attacks.py` runs, one subject per file. Images are drawn and mutated as in the tests."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[2] / "tests"
if str(TESTS) not in sys.path:
    sys.path.append(str(TESTS))
