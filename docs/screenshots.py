"""The README's pictures, from the recorded runs: ``make screenshots``.

They are put into a store that is gone afterwards; ``--tracking-uri`` takes another store's runs.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from report import analysis  # noqa: E402
from report.presentation import output, ui  # noqa: E402
from resnet import terminal  # noqa: E402

ELSEWHERE = "::1"
"""Stands for 127.0.0.1 in the pictures' browser: at 127.0.0.1 MLflow opens its
assistant, which takes a third of the page."""


def chromium() -> str | None:
    """The browser, if there is one."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next(filter(None, map(shutil.which, names)), None)


def browse(address: str, *options: str, seconds: int = 60) -> str:
    """Opens a page in headless Chromium until its scripts and requests are done.

    Args:
        address: of the page.
        options: what to do then: ``--dump-dom``, ``--screenshot=FILE``.
        seconds: that may pass on the page's clock, which stands still while it loads.

    Returns:
        What Chromium printed.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        return subprocess.run(  # noqa: S603 - fixed program
            [
                chromium(),
                *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *("--no-first-run", "--disable-background-networking", "--disable-sync"),
                # a mouse, without which each chart shows all of its buttons
                "--blink-settings=primaryHoverType=2,availableHoverTypes=2,"
                "primaryPointerType=4,availablePointerTypes=4",
                f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1",
                "--window-size=1500,1050",
                f"--user-data-dir={profile}",
                f"--virtual-time-budget={1000 * seconds}",
                *options,
                address,
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
        ).stdout


def main() -> None:
    """Makes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracking-uri")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    arguments = parser.parse_args()
    if not chromium():
        sys.exit("chromium is not there: Debian has it in the package chromium")
    with tempfile.TemporaryDirectory() as temporary:
        store = arguments.tracking_uri or f"sqlite:///{temporary}/mlflow.db"
        uri, places = ui.prepare(store, None)
        report = output.write(analysis.load(uri), Path(temporary) / "report")
        pages = {"report": (report / output.PAGE).as_uri()}
        with ui.served(uri) as (server, _):
            server = server.replace("127.0.0.1", f"[{ELSEWHERE}]")
            pages["mlflow"] = f"{server}{places['runs']}"
            for name, page in pages.items():
                picture = arguments.out / f"{name}.png"
                browse(page, f"--screenshot={picture}")
                print(picture)


if __name__ == "__main__":
    terminal.run(main)
