import logging
import os
from pathlib import Path

import pytest
from byol_edge.cli import output
from byol_edge.cli.output import Bar, megabytes, needs, note, print_table, reporting, say, share
from byol_edge.runtime import ByolEdgeError
from byol_edge.runtime.progress import Progress, report_progress
from commands import fails


def test_a_bar_gives_plain_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    now = [0.0]
    monkeypatch.setattr(output.time, "monotonic", lambda: now[0])
    with Bar("training", total=320) as bar:
        for done in range(32, 321, 32):
            now[0] += 4
            bar.update(done, 320)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "training: 96 of 320, 8 images/s, 28 s left",
        "training: 192 of 320, 8 images/s, 16 s left",
        "training: 288 of 320, 8 images/s, 4 s left",
    ]


def test_a_resumed_bar_counts_only_what_it_saw(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(output.time, "monotonic", lambda: now[0])
    with Bar("training", total=100) as bar:
        now[0] += 1000  # on preparing
        bar.update(91, 100)
        now[0] += 11
        bar.update(92, 100)
    assert capsys.readouterr().err == "training: 92 of 100, 0.091 images/s, 88 s left\n"


def test_what_the_library_reports_is_shown_while_a_command_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    now = [0.0]
    monkeypatch.setattr(output.time, "monotonic", lambda: now[0])
    log = logging.getLogger("byol_edge.evaluate.validate")
    with reporting():
        for done in (32, 64, 96):
            report_progress(Progress("validating", done, 100))
            now[0] += 8
        log.warning("left out: %s", "a.png")
        log.info("comparing")
        log.debug("nobody asks for this")
    log.warning("after the command")
    report_progress(Progress("validating", 100, 100))
    assert capsys.readouterr().err.splitlines()[:3] == [
        "validating: 96 of 100, 4 images/s, 1 s left",
        "left out: a.png",
        "comparing",
    ]


def test_names_with_brackets_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]):
    note("left out: [red]/a[1].jpg :smile:")
    print_table("[b]title", ["a", "b"], [["[red]x", ":smile:"]])
    captured = capsys.readouterr()
    assert captured.err == "left out: [red]/a[1].jpg :smile:\n"
    assert "[b]title" in captured.out
    assert "[red]x" in captured.out
    assert ":smile:" in captured.out


def test_a_missing_import_becomes_a_line():
    with (
        pytest.raises(ByolEdgeError, match=r"needs nothing_of_the_kind.*pip install 'byol-edge\[train\]'"),
        needs("train"),
    ):
        import nothing_of_the_kind  # noqa: F401 # type: ignore[import-not-found]


def test_a_library_that_cannot_be_loaded_becomes_a_line():
    with (
        pytest.raises(ByolEdgeError, match=r"this command cannot start \(libtorch.*pip install 'byol-edge\[train\]'"),
        needs("train"),
    ):
        raise OSError("libtorch_global_deps.so: cannot open shared object file")


def test_figures():
    assert megabytes(11_238_014) == "11.24 MB"
    assert share(0.98217) == "0.982"
    assert share(None) == "–"


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, ("3000", None)), ({"GOMP_SPINCOUNT": "7"}, ("7", None)), ({"OMP_WAIT_POLICY": "ACTIVE"}, (None, "ACTIVE"))],
)
def test_openmp_is_told_not_to_spin_for_long_unless_the_user_said_otherwise(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: tuple[str | None, str | None]
):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that what follows is undone
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with needs("train"):
        pass
    assert (os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY")) == expected


def test_what_moves_the_cursor_is_spelled_out(capsys: pytest.CaptureFixture[str]):
    name = "a\x1b[31mb\x07\u202egpj.exe"
    say(f"{name}: ü – 5 °")
    print_table(name, ("file",), [(name,)])
    note(name)
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == "a\\x1b[31mb\\x07\\u202egpj.exe: ü – 5 °"
    assert not {"\x1b", "\x07", "\u202e"} & set(printed.out + printed.err)


def test_an_error_about_an_odd_name_is_a_line_that_hides_nothing(tmp_path: Path):
    pytest.importorskip("torch")
    assert "\\x1b[2Jx: no such folder" in fails(1, "train", tmp_path / "\x1b[2Jx", "--out", tmp_path / "run")
