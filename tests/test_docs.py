"""The documents' examples do what the documents say."""

import functools
import re
import shutil
import tomllib

import pytest
from conftest import ROOT

import resnet
from docs import coverage
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


def told_of_coverage():
    page = coverage.PAGE.read_text("utf-8")
    rows = page.split(coverage.BEGIN)[1].split(coverage.END)[0].splitlines()
    cells = [row.strip("| ").split(" | ") for row in rows if row.startswith("|")]
    return [[float(text.removesuffix(" %")) for text in row[2:]] for row in cells[2:]]


def test_no_interval_covers_less_than_it_should():
    """Nor does any cover less with few seeds, or with scales that are far off."""
    told = told_of_coverage()
    assert len(told) == len(coverage.CASES)
    assert min(map(min, told)) >= 93


@pytest.mark.parametrize("case", [0, 5, 14])
def test_the_coverage_told_is_what_is_simulated(case):
    """By fewer ladders: within four standard errors of as many intervals as there are at least."""
    draws = 250
    told = dict(zip(coverage.HEADINGS, told_of_coverage()[case], strict=True))
    found = coverage.simulate(case, draws)
    for heading in ("rows", "gains", "largest gain's lead", "one further run"):
        share = told[heading] / 100
        assert abs(found[heading] - share) < 4 * (share * (1 - share) / draws) ** 0.5, heading
