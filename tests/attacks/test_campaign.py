"""The command that attacks, `benchmarks/attacks.py`: it goes on where it was, and takes no failure for a success."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import pytest
from campaign.commands import Ended, Limits, Usage, find_fault, run_command
from campaign.hostile import mutate_bytes, mutate_json
from campaign.trials import Kind, Outcome, Results, run_trials, summarize

COMMAND = [sys.executable, str(Path(__file__).parents[2] / "benchmarks" / "attacks.py"), "--out"]


def odd_ones_fail(_: Path, trials: Sequence[int]) -> Iterator[Outcome]:
    for trial in trials:
        yield Outcome(trial, "a trial", "odd" if trial % 2 else "even", "lost" if trial % 2 else "")


def survive(_: Path, trials: Sequence[int]) -> Iterator[Outcome]:
    for trial in trials:
        yield Outcome(trial, "a trial", "again")


def break_off(_: Path, trials: Sequence[int]) -> Iterator[Outcome]:
    yield Outcome(trials[0], "a trial", "even")
    raise ValueError("no such bundle")


@pytest.mark.parametrize(
    ("ended", "fault"),
    [
        (Ended(0, "itself", "120 vectors", "embedding\n", Usage()), ""),
        (Ended(1, "itself", "", "byol-edge: nothing there\n", Usage()), ""),
        (Ended(2, "itself", "", "Usage: byol-edge\n\nError: no such option\n", Usage()), ""),
        (Ended(1, "itself", "", "", Usage()), "not one line"),
        (Ended(1, "itself", "", "byol-edge: one\nbyol-edge: two\n", Usage()), "not one line"),
        (Ended(1, "itself", "", "byol-edge: one\nterminate called\n", Usage()), "not one line"),
        (Ended(1, "itself", "", "Traceback (most recent call last):\nValueError\n", Usage()), "a traceback"),
        (Ended(-11, "itself", "", "", Usage()), "ended with -11"),
        (Ended(3, "itself", "", "", Usage()), "ended with 3"),
        (Ended(-9, "time", "", "", Usage()), "took too long"),
        (Ended(-9, "memory", "", "", Usage()), "took too much memory"),
        (Ended(0, "itself", "\x1b[31m", "", Usage()), "control characters"),
        (Ended(0, "itself", "2026 [E:onnxruntime:, x.cc]", "", Usage()), "an engine's own messages"),
        (Ended(0, "itself", "x" * 30_000, "", Usage()), "too much text"),
    ],
)
def test_what_no_command_may_do_is_found(ended: Ended, fault: str):
    found = find_fault(ended)
    assert found.startswith(fault)
    assert bool(found) == bool(fault)


def test_a_command_is_run_watched_and_limited():
    ended = run_command("inspect", "nothing-there")
    assert (ended.code, ended.cause, find_fault(ended)) == (1, "itself", "")
    assert ended.usage.megabytes > 5
    assert run_command("--help", limits=Limits(seconds=0.01)).cause == "time"
    assert run_command("--help", limits=Limits(megabytes=5)).cause == "memory"


def test_a_trial_that_fails_fails_the_campaign(tmp_path: Path):
    kinds = [Kind("made-up", 4, odd_ones_fail)]
    results = Results(tmp_path / "results.jsonl")
    run_trials(kinds, results, tmp_path / "work")
    table, whole = summarize(kinds, results)
    assert not whole
    assert table.splitlines()[1].split() == ["made-up", "4", "2", "even", "2,", "odd", "2"]
    assert "FAILED --only made-up --trial 3: a trial: lost" in table


def test_what_is_done_is_not_tried_again_and_what_failed_if_asked(tmp_path: Path):
    file = tmp_path / "results.jsonl"
    run_trials([Kind("made-up", 4, odd_ones_fail)], Results(file), tmp_path / "work")
    with file.open("a") as cut:
        cut.write('{"kind": "made-up", "trial": 4, "wh')  # as a kill leaves it
    kinds = [Kind("made-up", 6, survive)]
    results = Results(file)
    run_trials(kinds, results, tmp_path / "work")
    assert [each.ended for each in results.of(kinds[0])] == ["even", "odd", "even", "odd", "again", "again"]
    results = Results(file, forget_failures=True)
    run_trials(kinds, results, tmp_path / "work")
    assert [each.ended for each in results.of(kinds[0])] == ["even", "again", "even", "again", "again", "again"]
    assert sorted(json.loads(line)["trial"] for line in file.read_text().splitlines()) == [0, 1, 2, 3, 4, 5]
    assert summarize(kinds, results)[1]


def test_a_trial_without_an_outcome_is_a_failure(tmp_path: Path):
    kinds = [Kind("made-up", 3, break_off, together=3)]
    results = Results(tmp_path / "results.jsonl")
    assert not summarize(kinds, results)[1]
    run_trials(kinds, results, tmp_path / "work")
    table, whole = summarize(kinds, results)
    assert not whole
    assert table.count("no such bundle") == 2


def test_mutations_are_the_same_each_time_and_change_something():
    content = {"files": {"a": {"sha256": "0" * 64, "size": 3}}, "default": "a", "list": [1, 2.5, None, True]}
    made = [mutate_json(content, Random(seed)) for seed in range(500)]
    assert made == [mutate_json(content, Random(seed)) for seed in range(500)]
    assert len({content for _, content in made}) > 250
    assert sum(json.dumps(content).encode() == changed for _, changed in made) == 0
    good = bytes(range(256)) * 20
    changed = [mutate_bytes(good, Random(seed))[1] for seed in range(200)]
    assert sum(each == good for each in changed) == 0


def test_the_command_tells_a_failure_by_its_exit_code(tmp_path: Path):
    pytest.importorskip("onnx")
    failed = {"kind": "images", "trial": 0, "what": "PNG cut", "ended": "died", "failure": "ended with -11"}
    (tmp_path / "results.jsonl").write_text(json.dumps(failed) + "\n")
    command = [*COMMAND, str(tmp_path), "--only", "images", "--count", "3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "FAILED --only images --trial 0: PNG cut: ended with -11" in done.stdout
    done = subprocess.run([*command, "--failed"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[1].split()[:3] == ["images", "3", "3"]


@pytest.mark.slow
def test_some_trials_of_each_kind(tmp_path: Path):
    done = subprocess.run([*COMMAND, str(tmp_path), "--count", "3"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert [line.split()[1:3] for line in done.stdout.splitlines() if not line.startswith("preparing")][1:] == [
        ["3", "3"] for _ in range(8)
    ]
