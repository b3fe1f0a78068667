"""The README's pictures, from the recorded runs: ``make screenshots``."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import typer

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from report import analysis  # noqa: E402
from report.presentation import output, ui  # noqa: E402

ELSEWHERE = "::1"
"""Stands for 127.0.0.1 in the browser: at 127.0.0.1 MLflow opens its assistant, which takes a third
of the page."""
OPTIONS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
    *("--disable-background-networking", "--disable-sync", "--window-size=1500,1050"),
    # a mouse, without which each chart shows all of its buttons
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2,"
    "primaryPointerType=4,availablePointerTypes=4",
]


def chromium() -> str | None:
    """Returns the path of the browser, if there is one."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next(filter(None, map(shutil.which, names)), None)


def browse(address: str, *options: str, seconds: int = 60) -> str:
    """Opens a page in headless Chromium until its scripts and requests are done.

    Args:
        address: address of the page.
        options: what Chromium does then: ``--dump-dom``, ``--screenshot=FILE``.
        seconds: limit on the page's clock, which stands still while the page loads.

    Returns:
        What Chromium printed.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        limits = [f"--user-data-dir={profile}", f"--virtual-time-budget={1000 * seconds}"]
        names = f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1"
        return subprocess.run(  # noqa: S603 - fixed program
            [chromium(), *OPTIONS, names, *limits, *options, address],
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
        ).stdout


def main(tracking_uri: str = "", out: Path = ROOT / "docs") -> None:
    """Makes the pictures, of the runs in TRACKING_URI or of the recorded runs."""
    if not chromium():
        sys.exit("Chromium is missing: install Debian's package chromium")
    with tempfile.TemporaryDirectory() as temporary:
        uri, places = ui.prepare(tracking_uri or f"sqlite:///{temporary}/mlflow.db", None)
        content = analysis.load(uri, recorded=not tracking_uri)
        report = output.write(content, Path(temporary) / "report")
        with ui.served(uri) as (server, _):
            server = server.replace("127.0.0.1", f"[{ELSEWHERE}]")
            pages = {"report": (report / output.PAGE).as_uri(), "mlflow": server + places["runs"]}
            for name, page in pages.items():
                picture = out / f"{name}.png"
                browse(page, f"--screenshot={picture}")
                print(picture)


if __name__ == "__main__":
    typer.run(main)
