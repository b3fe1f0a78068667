"""Opens the recorded runs in Chromium and takes the README's pictures (``make screenshots``)."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from report import analysis
from report.presentation import output, ui

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
OPTIONS = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1500,1050"]
# At 127.0.0.1, MLflow's assistant covers a third of the page. At ::1, it stays closed.
OPTIONS += ["--host-resolver-rules=MAP ::1 127.0.0.1"]
# Chromium simulates a mouse. Without a mouse, each chart would show all of its buttons.
OPTIONS += ["--blink-settings=primaryHoverType=2,availableHoverTypes=2"]


def browse(address: str, *options: str) -> str:
    """Opens a page in headless Chromium, runs the page's scripts, and returns Chromium's output.

    ``options`` may be ``--dump-dom`` or ``--screenshot=FILE``.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        limits = [f"--user-data-dir={profile}", "--virtual-time-budget=60000"]
        command = [str(CHROMIUM), *OPTIONS, *limits, *options, address]
        return subprocess.run(  # noqa: S603 - fixed program
            command, check=True, capture_output=True, text=True, timeout=300
        ).stdout


def main() -> None:
    """Makes docs/report.png from the report, and docs/mlflow.png from MLflow's page of runs."""
    docs = Path(__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        uri, pages = ui.prepare(f"sqlite:///{folder}/mlflow.db", None)
        report = output.write(analysis.load(recorded=True), Path(folder, "report"))
        browse((report / output.PAGE).as_uri(), f"--screenshot={docs / 'report.png'}")
        with ui.served(uri) as (server, _):
            address = server.replace("127.0.0.1", "[::1]") + pages["runs"]
            browse(address, f"--screenshot={docs / 'mlflow.png'}")


if __name__ == "__main__":
    main()
