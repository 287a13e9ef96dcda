"""README.md and docs/: their commands, Python, settings and links are right, and they leave no flag out."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from byol_edge.cli.main import COMMANDS, cli
from byol_edge.train.config import read_config
from commands import call
from PIL import Image

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A block of code; `language` is empty for one without, and for an indented one."""

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def read_blocks(page: Path) -> Iterator[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    name, number = page.relative_to(ROOT).as_posix(), 0
    while number < len(lines):
        start = number
        if lines[number].startswith("```"):
            end = lines.index("```", number + 1)
            yield Block(name, start + 1, lines[number][3:].strip(), "\n".join(lines[number + 1 : end]))
            number = end + 1
        elif lines[number].startswith("    ") and (start == 0 or not lines[start - 1].strip()):
            while number < len(lines) and (lines[number].startswith("    ") or not lines[number].strip()):
                number += 1
            yield Block(name, start + 1, "", "\n".join(line[4:] for line in lines[start:number]))
        else:
            number += 1


BLOCKS = [block for page in PAGES for block in read_blocks(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}


def command_lines() -> list[tuple[str, list[str]]]:
    """Each line of a block that calls the command: where it stands, and what follows the command's name."""
    lines = []
    for block in BLOCKS:
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True) if line.startswith(("byol-edge ", "python -m byol_edge ")) else []
            if words:
                lines.append((f"{block.place}: {line}", words[1 if words[0] == "byol-edge" else 3 :]))
    return lines


LINES = command_lines()


@pytest.mark.parametrize(("place", "words"), LINES, ids=[place for place, _ in LINES])
def test_every_command_line_can_be_typed(place: str, words: list[str]):
    assert words[0] in cli.commands, place
    cli.commands[words[0]].make_context(words[0], words[1:])  # raises for a flag or a value that it does not take


def test_commands_and_flags_within_a_sentence_exist():
    found = [words.split() for text in TEXT.values() for words in re.findall(r"`byol-edge ([^`]+)`", text)]
    assert found
    for words in found:
        command = next((cli.commands[word] for word in words if word in cli.commands), cli)
        known = [command, cli] if words[0].startswith("-") else [command]
        flags = {flag for each in known for flag in flags_of(each)}
        assert {word for word in words if word.startswith("-")} <= flags, words
        assert words[0].startswith("-") or words[0] in cli.commands, words


def flags_of(command: click.Command) -> set[str]:
    options = [each for each in command.params if isinstance(each, click.Option)]
    return {flag for each in options for flag in (*each.opts, *each.secondary_opts)} | {"-h", "--help"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_and_flag_is_described(command: click.Command):
    text = "\n".join(TEXT.values())
    assert f"byol-edge {command.name}" in text
    for flag in {max(each.opts, key=len) for each in command.params if isinstance(each, click.Option)}:
        assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", text), f"{command.name} {flag}"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_helps(command: click.Command):
    assert command.name is not None
    shown = call(command.name, "--help")
    assert shown.exit_code == 0
    assert f"Usage: cli {command.name}" in shown.stdout
    options = [each for each in command.params if isinstance(each, click.Option)]
    assert all(each.help and each.opts[0] in shown.stdout for each in options)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path):
    prose = re.sub(r"^```.*?^```$", "", TEXT[page], flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name}: {target}"
        assert file.is_relative_to(ROOT), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.place)
def test_every_python_block_imports_what_there_is(block: Block):
    skip_without(block)
    imports: list[ast.stmt] = [
        each for each in ast.parse(block.text).body if isinstance(each, (ast.Import, ast.ImportFrom))
    ]
    assert any("byol_edge" in ast.unparse(each) for each in imports)
    exec(compile(ast.Module(imports, []), block.place, "exec"), {})


TOML = [block for block in BLOCKS if block.language == "toml"]


@pytest.mark.parametrize("block", TOML, ids=lambda block: block.place)
def test_every_config_file_is_one(block: Block, tmp_path: Path):
    (tmp_path / "config.toml").write_text(block.text)
    read_config(tmp_path / "config.toml")


@pytest.fixture
def workplace(finished_run: Path, finished_bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder with what the pages speak of, in which the test stands."""
    shutil.copytree(photos, tmp_path / "photos" / "train")
    for shape in photos.iterdir():
        (tmp_path / "photos" / "test" / shape.name).mkdir(parents=True)
        for image in sorted(shape.iterdir())[:5]:
            with Image.open(image) as picture:
                picture.save(tmp_path / "photos" / "test" / shape.name / f"{image.stem}.jpg")
    shutil.copytree(finished_run, tmp_path / "runs" / "photos")
    shutil.copytree(finished_bundle, tmp_path / "bundles" / "photos")
    for name in ("mug.jpg", "a.jpg", "b.png"):
        Image.new("RGB", (60, 40), "teal").save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert call("embed", "bundles/photos", "photos/test", "-o", "vectors.npz").exit_code == 0
    return tmp_path


# Modules of extras that `dev` does not have, by what blocks that take them say.
LARGE = {"byol_edge.ray": "ray", "import lancedb": "lancedb"}


def skip_without(block: Block) -> None:
    for text, module in LARGE.items():
        if text in block.text:
            pytest.importorskip(module)


def marked_by_time(block: Block) -> object:
    long = any(each in block.text for each in ("pretrain(", "export_bundle(", *LARGE))
    return pytest.param(block, marks=pytest.mark.slow if long else (), id=block.place)


@pytest.mark.parametrize("block", [marked_by_time(block) for block in PYTHON])
def test_every_python_block_runs(block: Block, workplace: Path):
    skip_without(block)
    if "pretrain(" in block.text:
        shutil.rmtree("runs")
    if "export_bundle(" in block.text:
        shutil.rmtree("bundles")
    small = 'TrainConfig("conv4", image_size=32, epochs=1, workers=0)'
    try:
        exec(compile(re.sub(r"TrainConfig\([^)]*\)", small, block.text), block.place, "exec"), {})
    finally:
        if "byol_edge.ray" in block.text:
            sys.modules["ray"].shutdown()
    assert (workplace / "bundles").exists() or "export_bundle(" not in block.text
    assert (workplace / "runs").exists() or "pretrain(" not in block.text
