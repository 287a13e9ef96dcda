from dataclasses import replace
from pathlib import Path

from byol_edge.export.config import ExportConfig
from byol_edge.export.source import load_source
from byol_edge.export.variants import write_variants


def test_without_images_of_the_users_one_way_is_taken_for_each_engine(finished_run: Path, tmp_path: Path):
    config = ExportConfig(int8=True)
    source = replace(load_source(finished_run, config), drawn=True)
    written = {each.name: each for each in write_variants(source, tmp_path, config)}
    assert sorted(written) == ["fp32.onnx", "fp32.xml", "int8.onnx", "int8.xml"]
    for name, how in (
        ("int8.onnx", "averaged min-max ranges, bias correction"),
        ("int8.xml", "min-max ranges per tensor, full bias correction"),
    ):
        search = written[name].search
        assert search is not None
        assert [trial.name for trial in search.tried] == [how]
        fidelity = search.kept.fidelity
        assert fidelity is not None and fidelity.cosine_mean > 0.99
