"""Writes a report's folder: the page, the figures and the tables."""

import json
import tempfile
from pathlib import Path

from matplotlib import rc_context

from report.analysis import Content
from report.presentation import figures, formats, page
from report.presentation.tables import all_tables
from resnet import UserError, records

MANIFEST = "manifest.json"
PAGE = "report.html"


def write(content: Content, out: Path) -> Path:
    """Writes a report's page, figures, tables and manifest into ``out``, and returns the folder.

    An earlier report is replaced. The new report is made in a temporary folder and then moved, so
    that nobody sees half a report.

    Raises:
        UserError: ``out`` cannot be written, or holds a file that is not part of a report.
    """
    out = out.resolve()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as aside:
            new = Path(aside, "new")
            _fill(content, new)
            refuse_foreign(out)
            if out.exists():
                out.rename(Path(aside, "old"))
            new.rename(out)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror or error}") from None
    return out


def refuse_foreign(out: Path) -> None:
    """Raises UserError if ``out`` is a file, or a folder with files that its manifest omits."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is not a folder; choose another path")
    manifest = out / MANIFEST
    own = json.loads(manifest.read_text(encoding="utf-8"))["files"] if manifest.is_file() else []
    for path in out.rglob("*"):
        name = path.relative_to(out).as_posix()
        hidden = own and path.name.startswith(".")  # such as .DS_Store, which macOS adds
        if not (path.is_dir() or hidden or name in (MANIFEST, *own)):
            raise UserError(
                f"--out {out}: holds {name!r}, which is not part of a report; choose another folder"
            )


def _fill(content: Content, folder: Path) -> None:
    pictures = folder / "figures"
    pictures.mkdir(parents=True)
    figures_by_name = figures.all_figures(content)
    drawn = {name: figures.to_svg(figure, name) for name, figure in figures_by_name.items()}
    for name, svg in drawn.items():
        (pictures / f"{name}.svg").write_text(svg, encoding="utf-8")
    with rc_context(fname=figures.STYLE):
        records.figures.save(figures_by_name["progression"], pictures / "progression.png", 200)
    made = all_tables(content)
    formats.write(made, folder / "tables")
    (folder / PAGE).write_text(page.render(content, made, drawn), encoding="utf-8")
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")
