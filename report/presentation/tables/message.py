"""What a report answers, in words: what was reproduced, what was not, what is missing."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from report.analysis import ASSUMED, Content, Judgement, System, prospect, state, statistics
from report.presentation.tables.commands import data_option
from report.presentation.tables.numbers import digits, least_to_most, percent, seed_list, span
from resnet.host.shell import count, duration

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
    """A part of the answer: a verdict, its heading, and what it is about."""

    verdict: str
    heading: str
    text: str


class Message(NamedTuple):
    """The answer in a sentence, its parts, and the commands that bring what is missing."""

    lead: str
    lines: list[Line]
    go_on: list[str]

    @property
    def text(self) -> str:
        """The lead and what no row of the table says, for beside it."""
        others = (line for line in self.lines if not line.verdict)
        return " ".join([self.lead, *(f"{line.heading}: {line.text}." for line in others)])


def words(number: int) -> str:
    """Writes ``three``, from eleven on ``11``."""
    return _WORDS[number] if number < len(_WORDS) else str(number)


def listed(parts: Sequence[str]) -> str:
    """Writes ``1, 2 and 3``."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


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
    """Answers what the study asks, as far as the runs do."""
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
    lead, lines = _reproduced(content, published)
    return Message(lead, [*lines, *_claims(content)], _go_on(content))


def _reproduced(content: Content, published: list[System]) -> tuple[str, list[Line]]:
    by = {v: [s for s in published if s.verdict == v] for v in SYMBOLS}
    total, tolerance = len(published), f"{100 * content.said.tolerance:g} points"
    accuracies = "published accuracy" if total == 1 else "published accuracies"
    if len(by["holds"]) == total:
        everything = "The" if total == 1 else "Both" if total == 2 else f"All {words(total)}"
        verb = "is" if total == 1 else "are"
        lead = f"{everything} {accuracies} {verb} reproduced to within {tolerance}."
    elif total == 1 and published[0].verdict in ("fails", ASSUMED):
        lead = f"The {accuracies} is not reproduced to within {tolerance}."
    elif not (by["holds"] or by["fails"] or by[ASSUMED]):
        waiting = ((v, len(by[v])) for v in ("undecided", "not run"))
        told = listed([f"{words(n)} {'is' if n == 1 else 'are'} {v}" for v, n in waiting if n])
        lead = f"Nothing is decided yet: of {words(total)} {accuracies}, {told}."
    else:
        parts = [
            f"{words(len(by['holds']))} of {words(total)} {accuracies} "
            f"{'is' if len(by['holds']) == 1 else 'are'} reproduced to within {tolerance}"
        ]
        failed = len(by["fails"]) + len(by[ASSUMED])
        for number, what in (
            (failed, "not" if by["fails"] else "not under our assumptions"),
            (len(by["undecided"]), "undecided"),
            (len(by["not run"]), "not run"),
        ):
            if number:
                parts.append(f"{words(number)} {'is' if number == 1 else 'are'} {what}")
        lead = f"{listed(parts)}."
        lead = lead[0].upper() + lead[1:]

    def each(systems: list[System]) -> str:
        return "; ".join(
            f"{_titled(s)}: {percent(s.accuracy, s.decimals)} here, "
            f"{percent(s.published, s.decimals)} published"
            f"{', but ' + s.assumed if s.verdict == ASSUMED else ''}"
            for s in systems
        )

    lines = [
        Line("holds", "Reproduced", each(by["holds"])),
        Line("fails", "Not reproduced", each(by["fails"])),
        Line(ASSUMED, "Not reproduced under our assumptions", each(by[ASSUMED])),
        Line("undecided", "Undecided", _undecided(content, by["undecided"])),
        Line("not run", "Not run", named(by["not run"]) if by["not run"] else ""),
    ]
    return lead, [line for line in lines if line.text]


def _undecided(content: Content, systems: list[System]) -> str:
    if not systems:
        return ""
    seeds = least_to_most([len(s.runs) for s in systems])
    more = f": {seeds} of {content.said.seeds} planned seeds were run" * content.interim
    return f"{named(systems)}{more}"


def _measured(content: Content) -> str:
    """The answer of a study that publishes no accuracies."""
    rungs = [s for s in content.rungs if s.accuracies] or [s for s in content.systems if s.runs]
    best = content.best
    if best is None:
        return "No run has a test accuracy."
    known = span(best.interval)
    interval = f" (95 % interval {known})" * (known != "-")
    seeds = f"mean of {count(len(best.accuracies), 'seed')}" if len(best.accuracies) > 1 else ""
    if len(rungs) == 1:
        told = ", ".join(filter(None, (f"{percent(best.accuracy)}{interval}", seeds)))
        return f"The test accuracy of {_titled(best)} is {told}."
    others = [s for s in rungs if s is not best]
    beaten = [s for s in others if _ahead(best, s)]
    lead = f"{_titled(best)} has the highest test accuracy, {percent(best.accuracy)}{interval}"
    lead = lead[0].upper() + lead[1:]
    if len(beaten) == len(others):
        return f"{lead}: more than {'the other' if len(others) == 1 else 'each other'} rung."
    equal = named([s for s in others if s not in beaten])
    return f"{lead}; the runs do not tell it apart from {equal}."


def _ahead(one: System, other: System) -> bool:
    """Whether the interval of the difference of two rows is above zero."""
    return statistics.gain(other.estimate, one.estimate).interval()[0] > 0


def _claims(content: Content) -> list[Line]:
    """How many claims hold and do not, in one line."""
    if not content.claims:
        return []
    parts = count_verdicts(content.claims)
    total = len(content.claims)
    if total == 1:
        return [Line("", "Claim", f"“{content.claims[0].claim.text}” {parts}")]
    return [Line("", "Further claims", f"of {words(total)}, {parts}")]


def count_verdicts(judged: Iterable[Judgement]) -> str:
    """Writes ``one holds, two fail (under our assumptions) and 16 are undecided``."""
    verdicts: list[str] = [j.verdict for j in judged]
    parts = []
    for verdict in SYMBOLS:
        if number := verdicts.count(verdict):
            head, _, rest = verdict.partition(" ")
            verb = {"holds": ("holds", "hold"), "fails": ("fails", "fail")}.get(head)
            one, several = verb or (f"is {head}", f"are {head}")
            phrase = f"{one if number == 1 else several} {rest}".strip()
            parts.append(f"{words(number)} {phrase}" if len(verdicts) > 1 else phrase)
    return listed(parts)


def _go_on(content: Content) -> list[str]:
    """The commands that bring the seeds that are planned and missing.

    ``ladder run`` skips finished runs of one's own, and knows nothing of recorded ones: of these
    only the seeds that are missing are named, and the new runs are recorded in their turn.
    """
    if content.run_set.reservation:
        return []
    numbers = [s.short for s in content.systems]
    recorded, by_seeds = content.run_set.recorded, dict[tuple[int, ...], list[str]]()
    for s in content.systems:
        there = {run.seed for run in s.runs}
        missing = tuple(seed for seed in range(content.said.seeds) if seed not in there)
        if missing and s.name in (*content.said.published, *content.said.ladder):
            seeds = missing if recorded else tuple(range(content.said.seeds))
            name = s.short if numbers.count(s.short) == 1 else s.name
            by_seeds.setdefault(seeds, []).append(name)
    data = data_option(content.study, content.runs[0]) if content.runs else []
    words = [["run", ",".join(n), "--seeds", seed_list(s), *data] for s, n in by_seeds.items()]
    words += [["record"], ["restore"]] * bool(recorded and words)
    return [content.study.command(*command, uri=content.uri or None) for command in words]


def facts(content: Content) -> str:
    """Returns the number of seeds per rung and the training time, in words."""
    if not content.runs:
        return ""
    seeds = least_to_most([len(s.runs) for s in content.systems if s.runs])
    interim = content.interim and not content.run_set.reservation
    planned = f", of {content.said.seeds} planned" * interim
    return f"Seeds per rung: {seeds}{planned}. Training time: {duration(content.seconds)}."


def why(content: Content, system: System) -> str:
    """Says in a line why a row has its verdict, from the numbers; "" if there is nothing to say."""
    s, tolerance = system, system.tolerance
    if not s.runs or math.isnan(s.published) or not s.comparable:
        return ""
    low, high = s.interval
    if math.isnan(low):
        return "too few seeds in all to know how much seeds vary" + _needed(content, s)
    half = (high - low) / 2
    # with the digits that keep it on its side of the tolerance
    wide = f"±{100 * half:.{digits([100 * half], [100 * tolerance], s.decimals)}f}"
    if s.verdict == "undecided":
        if half > tolerance:
            varies = f"seeds vary by {100 * s.deviation:.{s.decimals}f} points"
            allowed = f"is wider than the {100 * tolerance:g} allowed"
            return f"{varies}; the interval, {wide}, {allowed}{_needed(content, s)}"
        return (
            f"the interval, {span(s.interval)}, lies partly beyond the {100 * tolerance:g} points "
            f"allowed{_needed(content, s)}"
        )
    if s.verdict == ASSUMED:
        return s.assumed
    inside = "within" if s.verdict == "holds" else "beyond"
    near = f"{inside} {100 * tolerance:g} points of the published accuracy"
    return f"all of the interval, {wide}, lies {near}"


def _needed(content: Content, system: System) -> str:
    needed = prospect(content, system).seeds
    if needed is None or needed <= len(system.runs):
        return ""
    return f"; {count(needed, 'seed')} should do"


def wrong(content: Content) -> str:
    """Says how many of all verdicts one must expect to be wrong."""
    verdicts = [*content.verdicts, *(j.verdict for j in content.claims)]
    decided = sum(v[:5] in ("holds", "fails") for v in verdicts)
    return (
        f"Each of {len(verdicts)} verdicts may be wrong with a probability of at most 5 %. Of the "
        f"{decided} decided here, up to {decided * statistics.ALPHA:.3g} may be wrong."
    )


def missing(content: Content) -> list[str]:
    """Lists what the report cannot show or leaves out, a line each."""
    absent = {s.name: f"{s.name}: {s.waiting}" for s in content.systems if not s.runs}
    absent = {name: text for name, text in absent.items() if not text.endswith(": not run")}
    going = [
        f"{row.rung}, seed {row.seed} (run {row.run_id[:8]}): {state(row.status)}"
        for row in content.selection.unfinished.itertuples(index=False)
        if row.rung not in absent
    ]
    return [*absent.values(), *going, *content.notes]
