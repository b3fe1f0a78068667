"""Makes the README's pictures from the recorded runs: ``make screenshots`` (needs Chromium)."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from report import analysis
from report.presentation import output, ui

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
OPTIONS = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1500,1050"]
# At the address 127.0.0.1 MLflow opens its assistant, which covers a third of the page.
OPTIONS += ["--host-resolver-rules=MAP ::1 127.0.0.1"]
# Without a mouse each chart shows all of its buttons.
OPTIONS += ["--blink-settings=primaryHoverType=2,availableHoverTypes=2"]


def browse(address: str, *options: str) -> str:
    """Opens a page in headless Chromium, waits for its scripts, and returns Chromium's output.

    ``options`` may be ``--dump-dom`` or ``--screenshot=FILE``.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        limits = [f"--user-data-dir={profile}", "--virtual-time-budget=60000"]
        command = [str(CHROMIUM), *OPTIONS, *limits, *options, address]
        return subprocess.run(  # noqa: S603 - fixed program
            command, check=True, capture_output=True, text=True, timeout=300
        ).stdout


def main() -> None:
    """Makes a picture of the report's page and one of the runs in MLflow's UI."""
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
