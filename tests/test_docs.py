"""The documents' examples do what the documents say."""

import functools
import re
import shutil
import tomllib

from conftest import ROOT

import resnet
from report import claims
from resnet import config


def test_the_rows_of_imports_are_told_as_they_are_checked():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    architecture = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    told = {
        contract["containers"][0]: "\n".join(row.replace(" | ", "  ") for row in contract["layers"])
        for contract in settings["contracts"]
        if "containers" in contract
    }
    for rows in told.values():
        assert f"```\n{rows}\n```" in architecture
    assert told["resnet"] in re.sub("^ +", "", resnet.__doc__, flags=re.MULTILINE)


def test_a_rung_of_ones_own(tmp_path, monkeypatch):
    rung, claim = re.findall(
        r"```yaml\n(.*?)```", (ROOT / "docs" / "own-rung.md").read_text("utf-8"), re.DOTALL
    )
    folder = shutil.copytree(config.EXPERIMENTS, tmp_path / "experiments")
    for name, path in config.find(folder).items():
        if name not in claims.load_study().published:  # whoever followed the document has one
            path.unlink()
    (folder / "06_mine.yaml").write_text(rung, encoding="utf-8")
    paths = config.find(folder)
    assert config.select("all", paths)[-1] == "06_mine"
    mine, before = (config.load(paths[name]) for name in ("06_mine", "05_deeper_dropout"))
    assert {k: v for k, v in mine.flat().items() if before.flat()[k] != v} == {
        "data.augmentation.rotation_range": 20,
        "data.augmentation.zoom_range": 0.2,
    }
    assert mine.assumed["data.augmentation.rotation_range"].startswith("mine")

    monkeypatch.setattr(config, "find", functools.partial(config.find, folder))
    path = folder / "claims.yaml"
    before, below, after = path.read_text("utf-8").partition("\n# What the study leaves open")
    path.write_text(f"{before}\n{claim}{below}{after}", encoding="utf-8")
    assert claims.load_study(path).claims[-1].id == "mine-gain"
