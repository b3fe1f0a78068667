"""Commands, examples and tables in the docs agree with the code."""

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


def test_the_docs_show_the_layers_that_import_linter_checks():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    architecture = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    layers = {
        contract["containers"][0]: "\n".join(row.replace(" | ", "  ") for row in contract["layers"])
        for contract in settings["contracts"]
        if "containers" in contract
    }
    for rows in layers.values():
        assert f"```\n{rows}\n```" in architecture
    rows = [row.split() for row in reversed(layers["resnet"].splitlines())]
    height = {package: number for number, row in enumerate(rows) for package in row}
    named = [word for word in re.findall(r"``(\w+)``", resnet.__doc__) if word in height]
    assert sorted(named) == sorted({*height} - {"host", "events"})  # the docstring omits these two
    assert [height[name] for name in named] == sorted(height[name] for name in named)


def commands_in(page):
    """Yields the arguments of each ``ladder`` command in a page's code blocks and sentences."""
    text = re.sub("^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    blocks = [line.partition(" #")[0] for line in lines if line.startswith("    ")]
    prose = "\n".join(line for line in lines if not line.startswith("    "))
    program = r"(?:\w+=\S* )*(?:(?:\S+/)?ladder|(?:\S+/)?python runner\.py) (.+)"
    for code in (*blocks, *re.findall("`([^`]+)`", prose)):
        if found := re.fullmatch(program, " ".join(code.split())):
            yield shlex.split(found[1])


def test_the_docs_show_every_command_with_valid_arguments():
    program = typer.main.get_command(runner._app())
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    shown = [words for page in pages for words in commands_in(page)]
    assert {words[0] for words in shown} >= {*program.commands} - {"ui"}  # the docs show "make ui"
    for name, *words in map(runner._as_command, shown):
        command = program.commands.get(name)
        with contextlib.suppress(typer.Exit):  # raised by --help
            (command or program).make_context("ladder", words if command else [name, *words])


def test_the_example_rung_and_claim_in_own_rung_md_are_valid(tmp_path):
    page = (ROOT / "docs" / "own-rung.md").read_text("utf-8")
    rung, claim = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    folder = shutil.copytree(SHIPPED, tmp_path / "experiments")
    for name, path in Study.open(folder).files.items():
        if name not in analysis.load_statements(Study.open()).published:
            path.unlink()  # removes a rung that a reader of own-rung.md has already added
    (folder / "06_mine.yaml").write_text(rung, encoding="utf-8")
    study = Study.open(folder)
    assert select("all", study.files)[-1] == "06_mine"
    mine, before = map(study.experiment, ("06_mine", "05_deeper_dropout"))
    assert {k: v for k, v in mine.flat().items() if before.flat()[k] != v} == {
        "data.augmentation.rotation_range": 20,
        "data.augmentation.zoom_range": 0.2,
    }
    assert mine.assumed["data.augmentation.rotation_range"].startswith("mine")

    heading = "\n# What the study leaves open"
    claims = study.claims.read_text("utf-8").replace(heading, f"\n{claim}{heading}")
    study.claims.write_text(claims, encoding="utf-8")
    assert analysis.load_statements(Study.open(folder)).claims[-1].id == "mine-gain"


def test_the_figures_on_the_best_of_three_runs_follow_from_the_records():
    page = (ROOT / "docs" / "evidence.md").read_text("utf-8").partition("## Why the best of")[2]
    section, found = page.partition("\n## ")[0], {}
    exec("\n".join(re.findall("^    (.+)", section, re.MULTILINE)), found)
    text = " ".join(section.split())
    leads = [f"{100 * lead:+.2f}" for lead in found["lead"]]
    assert f"{', '.join(leads[:-1])} and {leads[-1]} points" in text
    assert f"or {100 * found['lead'].mean():.3f} on average" in text
    assert f" rungs, r is {found['correlation']:.2f}, with" in text


def documented_coverage():
    page = coverage.PAGE.read_text("utf-8")
    rows = page.split(coverage.BEGIN)[1].split(coverage.END)[0].splitlines()
    cells = [row.strip("| ").split(" | ") for row in rows if row.startswith("|")]
    return [[float(text.removesuffix(" %")) for text in row[2:]] for row in cells[2:]]


def test_at_least_93_percent_of_intervals_contain_the_truth_in_every_documented_case():
    documented = documented_coverage()
    assert len(documented) == len(coverage.CASES)
    assert min(map(min, documented)) >= 93


@pytest.mark.parametrize("case", [0, 5, 14])
def test_a_short_simulation_agrees_with_the_documented_coverage(case):
    draws = 250
    documented = dict(zip(coverage.HEADINGS, documented_coverage()[case], strict=True))
    found = coverage.simulate(case, draws)
    for heading in ("rows", "gains", "largest gain's lead"):
        share = documented[heading] / 100
        assert abs(found[heading] - share) < 4 * (share * (1 - share) / draws) ** 0.5, heading
