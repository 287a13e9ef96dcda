from pathlib import Path

import pytest
from byol_edge.export import target
from byol_edge.export.target import ARM, AVX2, VNNI, find_target


@pytest.mark.parametrize(
    ("text", "machine", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni\n", "x86_64", VNNI),
        ("flags\t\t: fpu avx2 avx_vnni\n", "x86_64", VNNI),
        ("flags\t\t: fpu avx2 avx512f\n", "x86_64", AVX2),
        ("model name: of another kind\n", "x86_64", VNNI),
        ("Features\t: fp asimd\n", "aarch64", ARM),
    ],
)
def test_the_target_is_what_the_machine_says_of_itself(
    text: str, machine: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(target, "CPU_INFO", tmp_path / "cpuinfo")
    assert find_target(machine) == expected
    monkeypatch.setattr(target, "CPU_INFO", tmp_path / "nowhere")
    assert find_target("x86_64") == VNNI
