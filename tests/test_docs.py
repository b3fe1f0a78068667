"""The documents' examples do what the documents say."""

import contextlib
import re
import shlex
import shutil
import tomllib

import pytest
import typer
from conftest import ROOT

import resnet
import runner
from docs import coverage
from report import analysis
from resnet.study import SHIPPED, Study, select


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
    rows = [row.split() for row in reversed(told["resnet"].splitlines())]
    height = {package: number for number, row in enumerate(rows) for package in row}
    named = [word for word in re.findall(r"``(\w+)``", resnet.__doc__) if word in height]
    assert sorted(named) == sorted({*height} - {"host", "events"})  # for all, and no package
    assert [height[name] for name in named] == sorted(height[name] for name in named)


def told_commands(page):
    """What ``ladder`` is given on a page: in blocks of code, and within sentences."""
    text = re.sub("^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    blocks = [line.partition(" #")[0] for line in lines if line.startswith("    ")]
    prose = "\n".join(line for line in lines if not line.startswith("    "))
    program = r"(?:\w+=\S* )*(?:(?:\S+/)?ladder|(?:\S+/)?python runner\.py) (.+)"
    for code in (*blocks, *re.findall("`([^`]+)`", prose)):
        if found := re.fullmatch(program, " ".join(code.split())):
            yield shlex.split(found[1])


def test_every_command_that_is_told_is_one():
    program = typer.main.get_command(runner._app())
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    told = [words for page in pages for words in told_commands(page)]
    assert {words[0] for words in told} >= {*program.commands} - {"ui"}  # make ui
    for name, *words in map(runner._as_command, told):
        command = program.commands.get(name)
        with contextlib.suppress(typer.Exit):  # --help
            (command or program).make_context("ladder", words if command else [name, *words])


def test_a_rung_of_ones_own(tmp_path):
    rung, claim = re.findall(
        r"```yaml\n(.*?)```", (ROOT / "docs" / "own-rung.md").read_text("utf-8"), re.DOTALL
    )
    folder = shutil.copytree(SHIPPED, tmp_path / "experiments")
    for name, path in Study.open(folder).files.items():
        if name not in analysis.load_statements(Study.open()).published:
            path.unlink()  # whoever followed the document has one
    (folder / "06_mine.yaml").write_text(rung, encoding="utf-8")
    study = Study.open(folder)
    assert select("all", study.files)[-1] == "06_mine"
    mine, before = map(study.experiment, ("06_mine", "05_deeper_dropout"))
    assert {k: v for k, v in mine.flat().items() if before.flat()[k] != v} == {
        "data.augmentation.rotation_range": 20,
        "data.augmentation.zoom_range": 0.2,
    }
    assert mine.assumed["data.augmentation.rotation_range"].startswith("mine")

    before, below, after = study.claims.read_text("utf-8").partition(
        "\n# What the study leaves open"
    )
    study.claims.write_text(f"{before}\n{claim}{below}{after}", encoding="utf-8")
    assert analysis.load_statements(Study.open(folder)).claims[-1].id == "mine-gain"


def test_the_table_of_quantities_is_that_of_the_code():
    page = (ROOT / "docs" / "own-ladder.md").read_text("utf-8").partition("## Quantities")[2]
    rows = [row.strip("| ").split(" | ") for row in page.splitlines() if row.startswith("| `")]
    assert rows == [
        [f"`{name}`", q.unit, q.needs or "-", q.meaning] for name, q in analysis.QUANTITIES.items()
    ]


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
    for heading in ("rows", "gains", "largest gain's lead"):
        share = told[heading] / 100
        assert abs(found[heading] - share) < 4 * (share * (1 - share) / draws) ** 0.5, heading
