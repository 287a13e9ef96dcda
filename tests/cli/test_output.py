import pytest
from byol_edge.cli import output
from byol_edge.cli.output import Bar, megabytes, needs, note, print_table, share
from byol_edge.runtime import ByolEdgeError


def test_a_bar_gives_plain_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    now = [0.0]
    monkeypatch.setattr(output.time, "monotonic", lambda: now[0])
    with Bar("training", total=10, scale=32) as bar:
        for done in range(1, 11):
            now[0] += 4
            bar.update(done, 10)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "training: 3 of 10, 8 images/s, 28 s left",
        "training: 6 of 10, 8 images/s, 16 s left",
        "training: 9 of 10, 8 images/s, 4 s left",
    ]


def test_a_resumed_bar_counts_only_what_it_saw(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(output.time, "monotonic", lambda: now[0])
    with Bar("training", total=100, scale=1) as bar:
        now[0] += 1000  # on preparing
        bar.update(91, 100)
        now[0] += 11
        bar.update(92, 100)
    assert capsys.readouterr().err == "training: 92 of 100, 0 images/s, 88 s left\n"


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


def test_figures():
    assert megabytes(11_238_014) == "11.24 MB"
    assert share(0.98217) == "0.982"
    assert share(None) == "–"
