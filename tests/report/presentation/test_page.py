"""Tests the head, the links, the escaped characters and the scripts of the report's page."""

import re

import pytest
from report_known import CHROMIUM, SAID, N, browsed, build, read
from report_store import CLASSES, LADDER, STUDY, right

from report import analysis
from report.presentation import output
from report.presentation.tables import message
from resnet.host.messages import duration


def test_the_page_begins_with_the_question_the_answer_and_the_number_of_seeds(two_seeds, full):
    seconds = 6 * 25 * 61
    assert message.facts(analysis.load(two_seeds[0].uri)) == (
        f"Seeds per rung: 3 (5 are planned). Training time: {duration(seconds)}."
    )
    text = (full[1] / output.PAGE).read_text()
    assert "<h1>resnet-ladder</h1>" in text
    assert f'<p class="question">{STUDY.about}</p>' in text
    assert f'<p class="lead">{message.message(analysis.load(full[0].uri)).lead}</p>' in text


HOSTILE = ("<script>alert(1)</script>", "100%_a&b", "$x^2$ {\\frac", "a|b`c`[d](e)*f*", "[z]")


def test_special_characters_in_names_are_escaped_in_every_format(store):
    twins = ("\u00b5", "\u03bc")  # Python treats these two characters as the same identifier
    classes = (*HOSTILE, *twins, "true", "1e3", *CLASSES[len(HOSTILE) + 4 :])
    for seed, name in enumerate(HOSTILE):
        store.add(
            name,
            right(N, 700 + seed),
            like=LADDER[0],
            title=name,
            dataset=HOSTILE[0],
            classes=classes,
            tags={"device": name},
        )
    folder = build(store)
    cells = read(folder)
    assert not cells.problems
    shown = {row[0].partition(" ")[2].split("\n")[0] for row in cells.tables["progression"][6:]}
    assert set(HOSTILE) <= {name.split(" ", 1)[-1] for name in shown} | shown
    assert set(classes) == set(cells.records("classes"))
    assert cells.scripts == 1
    for path in (folder / "tables").glob("*.md"):
        text = path.read_text()
        assert "<script" not in text
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1, path
    for path in (folder / "tables").glob("*.tex"):
        body = path.read_text().partition(r"\midrule")[2].partition(r"\bottomrule")[0]
        for row in body.strip().splitlines():
            assert not re.search(r"(?<!\\)[%$#_^~]", row), path
            assert not row.lstrip().startswith("[")
        assert len({len(re.findall(r"(?<!\\)&", r)) for r in body.strip().splitlines()}) == 1
    assert r"100\%\_a\&b" in (folder / "tables" / "progression.tex").read_text()
    assert len(list((folder / "figures").glob("curves_*.svg"))) == len(HOSTILE)


def test_the_page_loads_no_other_files_and_every_link_has_a_target(full):
    cells = read(full[1])
    assert not cells.problems
    assert cells.scripts == 1
    text = (full[1] / output.PAGE).read_text()
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)
    runs = [f"runs-{run.id[:8]}" for run in analysis.load(full[0].uri).runs]
    assert {*(f"claims-{c.id}" for c in SAID.claims), *runs} <= set(ids)
    assert {f"progression-{name}" for name in LADDER} <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)
    assert cells.files
    assert not [name for name in cells.files if not (full[1] / name).is_file()]
    for table in cells.tables:
        if len(cells.tables[table]) > 1:
            assert {f"tables/{table}.{kind}" for kind in ("csv", "tex", "md")} <= set(cells.files)
    for name in (full[1] / "figures").glob("*.svg"):
        assert f"figures/{name.name}" in cells.files


@pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")
def test_a_browser_sorts_tables_opens_closed_parts_and_shows_whole_tables(full, tmp_path):
    script = """async () => {
      location.hash = "#curves";
      await new Promise((done) => setTimeout(done, 100));
      const table = document.querySelector("table.runs");
      table.querySelector("thead th:nth-child(4) button").click();
      return {
        sorted: [...table.tBodies[0].rows].map((row) => row.cells[3].textContent.trim()),
        order: table.querySelector("[aria-sort]").getAttribute("aria-sort"),
        wide: [...document.querySelectorAll(".scroll")]
          .filter((s) => s.scrollWidth > s.clientWidth + 1)
          .map((s) => s.getAttribute("aria-label")),
        open: document.getElementById("curves").open,
        page: document.documentElement.scrollWidth,
      };
    }"""
    seen = browsed(full[1], tmp_path, script)
    assert seen["sorted"] == sorted(seen["sorted"])
    assert seen["open"]
    assert seen["order"] == "ascending"
    assert seen["wide"] == []
    assert seen["page"] <= 1280
