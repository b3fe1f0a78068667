"""The report's answer in words: what was reproduced, what was not, and what is missing."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from report.analysis import ASSUMED, Content, Judgement, System, prospect, statistics
from report.presentation.tables import numbers
from report.presentation.tables.commands import data_option
from report.presentation.tables.numbers import NONE, digits, least_to_most, percent, seed_list, span
from resnet.host.messages import count, duration

SYMBOLS = {
    "holds": "✓",
    "fails": "✗",
    ASSUMED: "✗",
    "undecided": "?",
    "not run": "·",
    "not comparable": "≠",
}
"""The symbols of the verdicts, in the order in which every text lists verdicts."""
_OUTCOMES = {
    "holds": "reproduced",
    "fails": "not reproduced",
    ASSUMED: "not reproduced under our assumptions",
    "undecided": "undecided",
    "not run": "not run",
}
"""The answer's words for each verdict on a published accuracy."""
_WORDS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class Line(NamedTuple):
    """A line of the answer; ``verdict`` is "" if the line is about claims."""

    verdict: str
    heading: str
    text: str


class Message(NamedTuple):
    """The answer: a sentence, lines with details, and commands that run the missing seeds."""

    lead: str
    lines: list[Line]
    go_on: list[str]

    @property
    def text(self) -> str:
        """``lead`` and the lines about claims. The table of accuracies shows the other lines."""
        others = (line for line in self.lines if not line.verdict)
        return " ".join([self.lead, *(f"{line.heading}: {line.text}." for line in others)])


def words(number: int) -> str:
    """Writes numbers up to ten as words."""
    return _WORDS[number] if number < len(_WORDS) else str(number)


def listed(items: Sequence[str]) -> str:
    """Joins items, as in ``1, 2 and 3``."""
    return " and ".join(filter(None, (", ".join(items[:-1]), items[-1])))


def named(systems: Sequence[System]) -> str:
    """Names rungs and baselines, as in ``rungs 2 and 3 and vgg``."""
    rungs = [s.short for s in systems if s.short != s.name]
    others = [s.short for s in systems if s.short == s.name]
    first = [f"rung{'s' * (len(rungs) > 1)} {listed(rungs)}"] if rungs else []
    return listed([*first, *others])


def _titled(s: System) -> str:
    return f"{s.title} ({s.short})" if s.short == s.name else f"rung {s.short} ({s.title})"


def accuracy(s: System) -> list[str]:
    """Returns two texts: a row's accuracy (its state, if no run has finished) and the interval."""
    if not s.runs or math.isnan(s.published):
        return [percent(s.accuracy) if s.runs else s.waiting, span(s.interval)]
    return numbers.to_limits(s.accuracy, s.interval, s.band, "accuracy", s.decimals)


def message(content: Content) -> Message:
    """Returns the answer that the runs give to the study's question."""
    published = [s for s in content.systems if not math.isnan(s.published)]
    ran = [s for s in content.systems if s.runs]
    if not ran:
        return Message("Nothing has been run yet.", [], _go_on(content))
    if content.run_set.reservation:
        done = f"Rungs and baselines with runs: {len(ran)} of {len(content.systems)}."
        why = f"The runs are {content.run_set.reservation}, so nothing is compared with the study."
        return Message(f"{done} {_measured(content)} {why}", [], [])
    if not published:
        return Message(_measured(content), _claims(content), _go_on(content))
    lines = [*_by_verdict(content, published), *_claims(content)]
    return Message(_reproduced(content, published), lines, _go_on(content))


def _reproduced(content: Content, published: list[System]) -> str:
    by, total = Counter[str](s.verdict for s in published), len(published)
    reproduced = f"reproduced to within {100 * content.statements.tolerance:g} points"
    if total == 1:
        outcome = _OUTCOMES[published[0].verdict].replace("reproduced", reproduced)
        return f"The published accuracy is {outcome}."
    every = f"{'Both' if total == 2 else f'All {words(total)}'} published accuracies are"
    if by["holds"] == total:
        return f"{every} {reproduced}."
    accuracies = f"the {words(total)} published accuracies"
    if by["undecided"] == total:
        return f"There is no verdict yet on {accuracies}."
    failed = by["fails"] + by[ASSUMED]
    if failed == total:
        under = " under our assumptions" * (not by["fails"])
        return f"None of {accuracies} is {reproduced}{under}."
    others = [
        f"{words(by[verdict])} {_be(by[verdict])} {outcome}"
        for verdict, outcome in _OUTCOMES.items()
        if by[verdict] and verdict != "holds"
    ]
    if by["holds"]:
        first = f"{words(by['holds'])} of {accuracies} {_be(by['holds'])} {reproduced}"
        return f"{listed([first.capitalize(), *others])}."
    of = "Of" if failed else "There is no verdict yet: of"
    return f"{of} {accuracies}, {listed(others)}."


def _be(number: int) -> str:
    return "is" if number == 1 else "are"


def _by_verdict(content: Content, published: list[System]) -> list[Line]:
    def text(verdict: str, systems: list[System]) -> str:
        if verdict == "not run":
            return named(systems)
        if verdict == "undecided":
            planned = content.statements.seeds
            ran = [sum(run.seed < planned for run in s.runs) for s in systems]
            limit = f"{100 * content.statements.tolerance:g} points"
            part = f"part of each 95 % interval lies more than {limit} from the published accuracy"
            known = all(math.isfinite(s.interval[0]) for s in systems)
            told = [part if known else "not every interval is known"]
            told += [f"{least_to_most(ran)} of {planned} planned seeds were run"] * content.interim
            needed = max(prospect(content, s).seeds or 0 for s in systems)
            told += [f"verdicts should need up to {needed} seeds per row"] * (needed > planned)
            return f"{named(systems)}: {'; '.join(told)}"
        return "; ".join(
            f"{_titled(s)}: {here} here ({count(len(s.runs), 'seed')}, 95 % interval {interval}), "
            f"{percent(s.published, s.decimals)} published"
            f"{', but ' + s.assumed if verdict == ASSUMED else ''}"
            for s in systems
            for here, interval in [accuracy(s)]
        )

    by = ((v, [s for s in published if s.verdict == v]) for v in _OUTCOMES)
    return [Line(v, _OUTCOMES[v].capitalize(), text(v, found)) for v, found in by if found]


def _measured(content: Content) -> str:
    best = content.best
    if best is None:
        return "No run has a test accuracy."
    interval = span(best.interval)
    accuracy = percent(best.accuracy) + f" (95 % interval {interval})" * (interval != NONE)
    return f"The highest test accuracy is {accuracy}, reached by {_titled(best)}."


def _claims(content: Content) -> list[Line]:
    if not content.claims:
        return []
    verdicts, total = count_verdicts(content.claims), len(content.claims)
    if total == 1:
        text = f"“{content.claims[0].claim.text}” {verdicts.removeprefix('one ')}"
        return [Line("", "Claim", text)]
    return [Line("", f"{words(total).capitalize()} further claims", verdicts)]


def count_verdicts(judged: Iterable[Judgement]) -> str:
    """Counts verdicts: ``one holds, two fail (under our assumptions) and 16 are undecided``."""
    verdicts = Counter[str](j.verdict for j in judged)
    phrases = []
    for verdict in (v for v in SYMBOLS if verdicts[v]):
        number, phrase = verdicts[verdict], f"{_be(verdicts[verdict])} {verdict}"
        if verdict.startswith(("holds", "fails")):
            phrase = verdict if number == 1 else verdict.replace("s", "", 1)
        phrases.append(f"{words(number)} {phrase}")
    return listed(phrases)


def _go_on(content: Content) -> list[str]:
    """Returns the commands that run the missing seeds.

    ``ladder run`` skips finished runs in the store, but not recorded runs. If recorded runs are
    shown, the commands name only the missing seeds, and the last command records the new runs.
    """
    if content.run_set.reservation:
        return []
    statements, recorded = content.statements, content.run_set.recorded
    numbers, by_seeds = [s.short for s in content.systems], dict[tuple[int, ...], list[str]]()
    for s in content.systems:
        finished = {run.seed for run in s.runs}
        missing = tuple(seed for seed in range(statements.seeds) if seed not in finished)
        if missing and s.name in (*statements.published, *statements.ladder):
            seeds = missing if recorded else tuple(range(statements.seeds))
            name = s.short if numbers.count(s.short) == 1 else s.name
            by_seeds.setdefault(seeds, []).append(name)
    data = data_option(content.study, content.runs[0]) if content.runs else []
    words = [["run", ",".join(n), "--seeds", seed_list(s), *data] for s, n in by_seeds.items()]
    words += [["record"]] * bool(recorded and words)
    return [content.study.command(*command, uri=content.uri or None) for command in words]


def facts(content: Content) -> str:
    """States the number of seeds per rung and the training time."""
    if not content.runs:
        return ""
    seeds = least_to_most([len(s.runs) for s in content.systems if s.runs])
    interim = content.interim and not content.run_set.reservation
    planned = f" ({content.statements.seeds} are planned)" * interim
    return f"Seeds per rung: {seeds}{planned}. Training time: {duration(content.seconds)}."


def why(content: Content, s: System) -> str:
    """Explains a row's verdict with numbers; "" if no explanation is needed."""
    if not s.runs or math.isnan(s.published) or not s.comparable:
        return ""
    low, high = s.interval
    needed = prospect(content, s).seeds or 0
    more = f"; {count(needed, 'seed')} per row should give a verdict" * (needed > len(s.runs))
    if math.isnan(low):
        return f"all rows together have too few seeds to estimate the deviation of accuracy{more}"
    if s.verdict == ASSUMED:
        return s.assumed
    half = (high - low) / 2
    # enough digits to show whether the interval is wider than the tolerance
    wide = f"±{100 * half:.{digits([100 * half], [100 * s.tolerance], s.decimals)}f}"
    allowed = f"{100 * s.tolerance:g}"
    beyond = f"more than {allowed} points from the published accuracy"
    if s.verdict != "undecided":
        within = f"within {allowed} points of the published accuracy"
        return f"the whole interval, {wide}, lies {within if s.verdict == 'holds' else beyond}"
    if half > s.tolerance:
        varies = f"the deviation between seeds is {100 * s.deviation:.{s.decimals}f} points"
        return f"{varies}; the interval, {wide}, is wider than the allowed ±{allowed}{more}"
    return f"the interval is {accuracy(s)[1]}; part of it lies {beyond}{more}"


def wrong(content: Content) -> str:
    """States how many verdicts may be wrong by chance."""
    tests = len(content.verdicts) + len(content.claims)
    return (
        f"Each of the {tests} tests gives a wrong verdict with a probability of at most 5 %, so at "
        f"most {tests * statistics.ALPHA:.3g} wrong verdicts are expected."
    )


def missing(content: Content) -> list[str]:
    """Returns a line for each row with only unfinished runs, and the report's notes."""
    absent = [s for s in content.systems if not s.runs and s.waiting != "not run"]
    return [*(f"{s.name}: {s.waiting}" for s in absent), *content.notes]
