"""Every dependency's license is known and permissive, and docs/dependencies.md states those of the direct ones."""

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from licenses import (
    DEVICE,
    NVIDIA,
    PROJECT,
    ROOT,
    all_dependencies,
    direct_dependencies,
    is_permissive,
    license_of,
    split,
)

PAGE = ROOT / "docs" / "dependencies.md"
PRODUCT = (DEVICE, "all", "ray", "databases")
OTHER_PROJECTS = ("interop", "projects")  # none of it is shipped, nor installed with anything that is


@dataclass(frozen=True)
class Row:
    name: str
    license: str
    extras: frozenset[str]


def read_rows() -> list[Row]:
    """Of the table that has four columns."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    _, *rows = [cells for line in lines if len(cells := line.strip("| ").split(" | ")) == 4]
    return [Row(name, license, frozenset(extras.split(", "))) for name, license, extras, _ in rows]


ROWS = read_rows()


def test_the_page_names_every_direct_dependency_and_its_extras():
    named: dict[str, set[str]] = {requirement.name: {DEVICE} for requirement in direct_dependencies(DEVICE)}
    for extra, lines in PROJECT["optional-dependencies"].items():
        for name in {re.split(r"[\[>]", line)[0] for line in lines} - {PROJECT["name"]}:
            named.setdefault(name, set()).add(extra)
    assert {row.name: row.extras for row in ROWS} == named
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_page_states_the_license_of_each(row: Row):
    try:
        assert row.license in split(license_of(distribution(row.name)))
    except PackageNotFoundError:
        pytest.skip(f"{row.name} is not installed")


def test_what_is_shipped_depends_on_permissive_licenses_alone():
    names = {requirement.name for extra in PRODUCT for requirement in direct_dependencies(extra)}
    assert [row for row in ROWS if row.name in names and not is_permissive(row.license)] == []
    others = {requirement.name for extra in OTHER_PROJECTS for requirement in direct_dependencies(extra)}
    assert not names & others


@pytest.mark.parametrize("extra", PRODUCT)
def test_and_so_does_what_these_depend_on(extra: str):
    try:
        found = all_dependencies(direct_dependencies(extra))
    except PackageNotFoundError as error:
        if extra == DEVICE:
            raise
        pytest.skip(f"{error.name} is not installed")
    licenses = {name: license_of(package) for name, package in found.items()}
    others = {name: license for name, license in licenses.items() if not is_permissive(license)}
    # NVIDIA's libraries come with PyTorch for GPUs, and with nothing else; that for CPUs has none.
    assert set(others.values()) <= {NVIDIA}, others
    assert not set(others) & set(all_dependencies(direct_dependencies(extra), but_of=["torch"]))


@pytest.mark.parametrize("license", ["GPL-3.0-or-later", "MIT AND LGPL-2.1-only", "unknown", NVIDIA, ""])
def test_other_licenses_are_not_permissive(license: str):
    assert not is_permissive(license)


def test_a_part_of_an_expression_may_be_in_brackets():
    assert is_permissive("(MIT OR Apache-2.0) AND BSD-3-Clause")
    assert not is_permissive("(MIT OR GPL-2.0-only) AND BSD-3-Clause")
