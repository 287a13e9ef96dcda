"""Compares the vectors of two folders, file by file, as `byol-edge validate --vectors`: python compare.py A B"""

import sys
from pathlib import Path

from byol_edge.cli.output import print_table
from byol_edge.runtime.errors import ByolEdgeError
from byol_edge.runtime.vector_comparison import compare_vector_files


def compare(first: Path, second: Path) -> list[str]:
    """Prints the lowest cosine of each file of vectors to its namesake; what failed, a line each."""
    rows, failures = [], []
    for file in sorted(first.glob("*.npz")):
        try:
            found = compare_vector_files(file, second / file.name)
        except ByolEdgeError as error:
            failures.append(str(error))
            continue
        missing = ["an image is in one file alone"] if found.only_first or found.only_second else []
        problems = [*found.failures, *missing]
        verdict = "FAILED" if problems else "passed"
        rows.append((file.stem, str(found.common), f"{found.fidelity.cosine_min:.6f}", verdict))
        failures += [f"{file.stem}: {problem}" for problem in problems]
    if not rows:
        return [*failures, f"{first} and {second} have no vectors of the same"]
    print_table(f"{first.name} and {second.name}:", ("", "images", "lowest cosine", ""), rows)
    return failures


if __name__ == "__main__":
    if failures := compare(*map(Path, sys.argv[1:])):
        sys.exit("\n".join(failures))
