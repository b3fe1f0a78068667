"""The command ``ladder report``: writes the report, or writes results into README.md and docs/."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from resnet.study import Study
from resnet.terminal import Experiments, TrackingUri, console, flag, say, value

EXAMPLES = {
    "--open": "show the page in the browser",
    "--summary": "print accuracies and claims in the terminal",
    "--profile quick": "show the runs of the command  make quick",
    "--recorded": "show the recorded runs in results/",
    "--dataset 9acbe397": "select CIFAR-10 by the start of its fingerprint",
    "--compare training.epochs=2": "compare with runs that used this --set override",
    "--readme results/": "write results into README.md and docs/",
}


Out = Annotated[Path | None, value("DIR", "Folder for the report; by default reports/STUDY.")]
Dataset = Annotated[str | None, value("NAME", "A dataset's name or the start of its fingerprint.")]
Profile = Annotated[str | None, value("NAME", "A profile; by default 'full', if it has runs.")]
Modified = Annotated[
    str | None, value("KEY=VALUE ...", "Show runs with these --set overrides ('' for no override).")
]
Recorded = Annotated[
    bool, typer.Option("--recorded/--own", help="Show recorded runs or your own.", metavar="")
]
Compare = Annotated[
    list[str] | None,
    value(
        "SET",
        "Compare with another set of runs. SET is a dataset, a profile, --set overrides, "
        "'recorded', 'own', or the set's full name on the page. The option may be repeated.",
    ),
]
Readme = Annotated[
    Path | None, value("RECORDS", "Records folder; README.md and docs/ beside it get the results.")
]


def report(
    out: Out = None,
    open_: Annotated[bool, flag("--open", "Show the page in the browser.")] = False,
    summary: Annotated[bool, flag("--summary", "Print the tables; write nothing.")] = False,
    dataset: Dataset = None,
    profile: Profile = None,
    modified: Modified = None,
    recorded: Recorded = False,
    compare: Compare = None,
    readme: Readme = None,
    experiments: Experiments = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Writes the report, which gives each accuracy and claim a verdict with evidence.

    The report never mixes runs of different datasets, profiles or --set overrides.
    It never mixes recorded runs with your own. The page shows one set of runs and lists others.
    """
    study = Study.open(experiments)
    if readme:
        with console.status("reading records"):
            from report.presentation.readme import update

            update(study, readme)
        return say(f"README.md and docs/ were written from {escape(str(readme))}")
    out = out or Path("reports") / study.name
    with console.status("reading runs"):  # these imports take seconds
        from report import analysis
        from report.presentation import output
        from report.presentation.summary import show

        content = analysis.load(
            tracking_uri,
            study,
            dataset=dataset,
            profile=profile,
            modified=modified,
            recorded=recorded,
            compare=compare or (),
        )
        if not summary:
            output.write(content, out)
    if summary:
        return show(content, console)
    path = (out / output.PAGE).resolve()
    say(f"wrote {escape(str(path))}")
    say(f"[dim]{escape(content.run_set.label)}[/dim]")
    for other in content.compared:
        say(f"[dim]compared with {escape(other.run_set.label)}[/dim]")
    if open_:
        webbrowser.open(path.as_uri())
