"""The command ``ladder report``: turns what MLflow holds into a page, or into documents."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from resnet.study import Study
from resnet.terminal import Experiments, TrackingUri, console, flag, say, value

EXAMPLES = {
    "--open": "the page, in reports/resnet-ladder, shown",
    "--summary": "progression and claims, here in the terminal",
    "--profile quick": "the runs of  make quick",
    "--recorded": "the recorded runs, straight from results/",
    "--dataset 9acbe397": "by the beginning of a fingerprint, CIFAR-10's",
    "--compare training.epochs=2": "beside the ladder, runs with that --set",
    "--readme results/": "README.md and docs/, from the records",
}


Out = Annotated[Path | None, value("DIR", "Folder to write, by default reports/STUDY.")]
Dataset = Annotated[str | None, value("NAME", "A dataset's name or the start of its fingerprint.")]
Profile = Annotated[str | None, value("NAME", "full, quick, ...; by default full, if it has runs.")]
Modified = Annotated[
    str | None, value("KEY=VALUE ...", "Runs with these --set overrides; '' for none.")
]
Recorded = Annotated[
    bool, typer.Option("--recorded/--own", help="The runs of results/, or your own.", metavar="")
]
Compare = Annotated[
    list[str] | None,
    value(
        "SET",
        "Another set of runs to show beside: its --set overrides, profile, dataset, recorded, own, "
        "or its whole name as the page lists it; may be repeated.",
    ),
]
Readme = Annotated[
    Path | None, value("RECORDS", "Write README.md's table and docs/ beside these records.")
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
    """Writes the report: does the ladder hold, claim by claim, with evidence.

    Runs of different datasets, profiles or modifications are never mixed, nor are
    recorded runs and your own. The page names the other sets of runs.
    """
    study = Study.open(experiments)
    if readme:
        with console.status("reading records"):
            from report.presentation.readme import update

            update(study, readme)
        return say(f"README.md and docs/ were written from {escape(str(readme))}")
    out = out or Path("reports") / study.name
    with console.status("reading runs"):  # the imports take seconds
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
