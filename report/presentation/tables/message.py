"""The answer of a report in words: what was reproduced, what was not, what is missing."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from report.analysis import ASSUMED, Content, Judgement, System, prospect, statistics
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
"""The verdicts in the order of every count."""
_WORDS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class Line(NamedTuple):
    """A part of the answer: a verdict, its heading, and the rows that it is about."""

    verdict: str
    heading: str
    text: str


class Message(NamedTuple):
    """The answer in a sentence, its parts, and the commands that run what is missing."""

    lead: str
    lines: list[Line]
    go_on: list[str]

    @property
    def text(self) -> str:
        """The lead and the lines that repeat no row of the table."""
        others = (line for line in self.lines if not line.verdict)
        return " ".join([self.lead, *(f"{line.heading}: {line.text}." for line in others)])


def words(number: int) -> str:
    """Writes ``three``, from eleven on ``11``."""
    return _WORDS[number] if number < len(_WORDS) else str(number)


def _are(number: int, what: str) -> str:
    return f"{words(number)} {'is' if number == 1 else 'are'} {what}"


def listed(items: Sequence[str]) -> str:
    """Writes ``1, 2 and 3``."""
    return " and ".join(filter(None, (", ".join(items[:-1]), items[-1])))


def named(systems: Sequence[System]) -> str:
    """Writes ``rungs 2 and 3 and vgg``."""
    rungs = [s.short for s in systems if s.short != s.name]
    others = [s.short for s in systems if s.short == s.name]
    first = [f"rung{'s' * (len(rungs) > 1)} {listed(rungs)}"] if rungs else []
    return listed([*first, *others])


def _titled(system: System) -> str:
    """Writes ``rung 2 (+ augmentation)``."""
    if system.short == system.name:
        return f"{system.title} ({system.short})"
    return f"rung {system.short} ({system.title})"


def message(content: Content) -> Message:
    """Answers the study's question, as far as the runs do."""
    published = [s for s in content.systems if not math.isnan(s.published)]
    ran = [s for s in content.systems if s.runs]
    if not ran:
        return Message("Nothing has been run yet.", [], _go_on(content))
    if content.run_set.reservation:
        top = content.best
        best = f" The highest test accuracy is {percent(top.accuracy)}." if top else ""
        lead = (
            f"This is a check of the machinery: {len(ran)} of {count(len(content.systems), 'row')} "
            f"ran.{best} The runs are {content.run_set.reservation}, so nothing is compared with "
            "the study."
        )
        return Message(lead, [], [])
    if not published:
        return Message(_measured(content), _claims(content), _go_on(content))
    lines = [*_by_verdict(content, published), *_claims(content)]
    return Message(_reproduced(content, published), lines, _go_on(content))


def _reproduced(content: Content, published: list[System]) -> str:
    """The first sentence: how many published accuracies are reproduced."""
    by, total = Counter[str](s.verdict for s in published), len(published)
    failed = by["fails"] + by[ASSUMED]
    accuracies = "published accuracy" if total == 1 else "published accuracies"
    reproduced = f"reproduced to within {100 * content.statements.tolerance:g} points"
    if by["holds"] == total:
        everything = "The" if total == 1 else "Both" if total == 2 else f"All {words(total)}"
        return f"{everything} {accuracies} {'is' if total == 1 else 'are'} {reproduced}."
    if total == failed == 1:
        return f"The {accuracies} is not {reproduced}."
    undecided = [_are(by[v], v) for v in ("undecided", "not run") if by[v]]
    if not (by["holds"] or failed):
        return f"Nothing is decided yet: of {words(total)} {accuracies}, {listed(undecided)}."
    verb = "is" if by["holds"] == 1 else "are"
    first = f"{words(by['holds'])} of {words(total)} {accuracies} {verb} {reproduced}"
    not_ = [_are(failed, "not" if by["fails"] else "not under our assumptions")] * bool(failed)
    lead = listed([first, *not_, *undecided])
    return f"{lead[0].upper()}{lead[1:]}."


def _by_verdict(content: Content, published: list[System]) -> list[Line]:
    by = {v: [s for s in published if s.verdict == v] for v in SYMBOLS}

    def each(verdict: str) -> str:
        return "; ".join(
            f"{_titled(s)}: {percent(s.accuracy, s.decimals)} here, "
            f"{percent(s.published, s.decimals)} published"
            f"{', but ' + s.assumed if verdict == ASSUMED else ''}"
            for s in by[verdict]
        )

    undecided = ""
    if by["undecided"]:
        seeds = least_to_most([len(s.runs) for s in by["undecided"]])
        more = f": {seeds} of {content.statements.seeds} planned seeds were run"
        undecided = named(by["undecided"]) + more * content.interim
    lines = [
        Line("holds", "Reproduced", each("holds")),
        Line("fails", "Not reproduced", each("fails")),
        Line(ASSUMED, "Not reproduced under our assumptions", each(ASSUMED)),
        Line("undecided", "Undecided", undecided),
        Line("not run", "Not run", named(by["not run"]) if by["not run"] else ""),
    ]
    return [line for line in lines if line.text]


def _measured(content: Content) -> str:
    """The answer of a study that publishes no accuracies."""
    best = content.best
    if best is None:
        return "No run has a test accuracy."
    interval = span(best.interval)
    accuracy = percent(best.accuracy) + f" (95 % interval {interval})" * (interval != NONE)
    return f"The highest test accuracy is {accuracy}, of {_titled(best)}."


def _claims(content: Content) -> list[Line]:
    if not content.claims:
        return []
    verdicts, total = count_verdicts(content.claims), len(content.claims)
    if total == 1:
        return [Line("", "Claim", f"“{content.claims[0].claim.text}” {verdicts}")]
    return [Line("", "Further claims", f"of {words(total)}, {verdicts}")]


def count_verdicts(judged: Iterable[Judgement]) -> str:
    """Writes ``one holds, two fail (under our assumptions) and 16 are undecided``."""
    verdicts = Counter[str](j.verdict for j in judged)
    phrases = []
    for verdict in (v for v in SYMBOLS if verdicts[v]):
        head, _, rest = verdict.partition(" ")
        verb = {"holds": ("holds", "hold"), "fails": ("fails", "fail")}.get(head)
        one, several = verb or (f"is {head}", f"are {head}")
        phrase = f"{one if verdicts[verdict] == 1 else several} {rest}".strip()
        one_alone = verdicts.total() == 1
        phrases.append(phrase if one_alone else f"{words(verdicts[verdict])} {phrase}")
    return listed(phrases)


def _go_on(content: Content) -> list[str]:
    """The commands that run the planned seeds that are missing.

    ``ladder run`` skips finished own runs but not recorded ones. So for recorded runs the commands
    name only the missing seeds, and record the new runs.
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
    """Returns the number of seeds per rung and the training time, in words."""
    if not content.runs:
        return ""
    seeds = least_to_most([len(s.runs) for s in content.systems if s.runs])
    interim = content.interim and not content.run_set.reservation
    planned = f", of {content.statements.seeds} planned" * interim
    return f"Seeds per rung: {seeds}{planned}. Training time: {duration(content.seconds)}."


def why(content: Content, system: System) -> str:
    """Explains a row's verdict by its numbers, in a line; "" if there is nothing to explain."""
    s, tolerance = system, system.tolerance
    if not s.runs or math.isnan(s.published) or not s.comparable:
        return ""
    low, high = s.interval
    needed = prospect(content, s).seeds or 0
    more = f"; {count(needed, 'seed')} should do" * (needed > len(s.runs))
    if math.isnan(low):
        return f"too few seeds in all to know how much seeds vary{more}"
    if s.verdict == ASSUMED:
        return s.assumed
    half = (high - low) / 2
    # with the digits that keep the width on its side of the tolerance
    wide = f"±{100 * half:.{digits([100 * half], [100 * tolerance], s.decimals)}f}"
    if s.verdict != "undecided":
        inside = "within" if s.verdict == "holds" else "beyond"
        near = f"{inside} {100 * tolerance:g} points of the published accuracy"
        return f"all of the interval, {wide}, lies {near}"
    if half > tolerance:
        varies = f"seeds vary by {100 * s.deviation:.{s.decimals}f} points"
        return (
            f"{varies}; the interval, {wide}, is wider than the {100 * tolerance:g} allowed{more}"
        )
    beyond = f"lies partly beyond the {100 * tolerance:g} points allowed"
    return f"the interval, {span(s.interval)}, {beyond}{more}"


def wrong(content: Content) -> str:
    """Returns the number of verdicts that may be wrong by chance, in words."""
    verdicts = [*content.verdicts, *(j.verdict for j in content.claims)]
    decided = sum(v[:5] in ("holds", "fails") for v in verdicts)
    return (
        f"Each of {len(verdicts)} verdicts may be wrong with a probability of at most 5 %. Of the "
        f"{decided} decided here, up to {decided * statistics.ALPHA:.3g} may be wrong."
    )


def missing(content: Content) -> list[str]:
    """Lists what the report cannot show or leaves out, one line each."""
    absent = [s for s in content.systems if not s.runs and s.waiting != "not run"]
    return [*(f"{s.name}: {s.waiting}" for s in absent), *content.notes]
