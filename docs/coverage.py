"""Simulates ladders to find how often the report's 95 % intervals contain the true value.

``.venv/bin/python -m docs.coverage`` writes the results into docs/evidence.md.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import typer
from rich.progress import track

from report.analysis import quantities, statistics
from report.analysis.statistics import Sample, Shared

PAGE = Path(__file__).parent / "evidence.md"
BEGIN = "<!-- written by  .venv/bin/python -m docs.coverage -->\n"
END = "<!-- end of what is written -->\n"
LADDER = ["01_template", "02_augmentation", "03_deeper_early_stopping", "04_lr_schedule"]
LADDER += ["05_deeper_dropout", "vgg"]
MEANS = (0.78, 0.82, 0.825, 0.865, 0.875, 0.845)
"""True accuracies of the rows. The two largest gains are equal, so that they are hard to rank."""
DEVIATIONS = (0.008, 0.012, 0.012, 0.0026, 0.0027, 0.010)
SEEDS = ((2, 3, 2, 1, 1, 5), (1, 1, 1, 1, 1, 5), (2,) * 6, (3,) * 6, (5,) * 6)
WRONG = {0.0: "right", 0.25: "a quarter off", 0.4: "40 % off"}
"""A scale is a first guess at a row's deviation. Each value names a typical error of the scales.

Each key is the size of this error: the standard deviation of log(true deviation / scale).
"""
CASES = [(seeds, wrong) for seeds in SEEDS for wrong in WRONG]
HEADINGS = ("rows", "the worst row", "gains", "largest gain's lead")


def draw(seeds: tuple[int, ...], wrong: float, random: np.random.Generator) -> np.ndarray:
    """Simulates a ladder with ``seeds[i]`` seeds in row i; ``wrong`` is a key of ``WRONG``.

    Returns one number per row, one per gain, and one for the largest gain's lead over other gains.
    A number is 1 if the interval contains the true value, 0 if not, and NaN without an interval.
    """
    scales = np.multiply(DEVIATIONS, np.exp(-wrong * random.standard_normal(len(LADDER))))
    rows = zip(LADDER, MEANS, DEVIATIONS, seeds, scales, strict=True)
    samples = {
        name: Sample(dict(enumerate(random.normal(mean, deviation, n))), scale)
        for name, mean, deviation, n, scale in rows
    }
    shared = Shared.of(samples)
    of = {name: shared.estimate(name, sample) for name, sample in samples.items()}
    found = [statistics.contrast([(1, e)]).interval() for e in of.values()]
    found += [statistics.gain(of[a], of[b]).interval() for a, b in pairwise(LADDER)]
    leads = quantities.leads(LADDER[1], "", LADDER[:-1])
    found.append(statistics.least([statistics.weighted(weights, of) for weights in leads])[1])
    (low, high), truth = np.transpose(found), np.array([*MEANS, *np.diff(MEANS), 0.0])
    return np.where(np.isnan(low), np.nan, (low <= truth) & (truth <= high))


def simulate(case: int, draws: int) -> dict[str, float]:
    """Simulates ladders of ``CASES[case]``; returns the share of correct intervals per heading."""
    random = np.random.default_rng([0, case])
    shares = np.nanmean([draw(*CASES[case], random) for _ in range(draws)], axis=0)
    rows, gains, lead = np.split(shares, [len(MEANS), 2 * len(MEANS) - 1])
    return dict(zip(HEADINGS, (rows.mean(), rows.min(), gains.mean(), lead[0]), strict=True))


def main(draws: int = 5_000, worth: float = 0) -> None:
    """Simulates DRAWS ladders for each line of a table, and writes the table to docs/evidence.md.

    With WORTH, each row's scale has WORTH degrees of freedom, and the table is only printed.
    """
    statistics.GUESS = worth or statistics.GUESS
    table = f"| seeds of the rows | scales are | {' | '.join(HEADINGS)} |\n{'| --- ' * 6}|\n"
    for case, (seeds, wrong) in enumerate(track(CASES, "Simulating")):
        cells = " | ".join(f"{100 * share:.1f} %" for share in simulate(case, draws).values())
        table += f"| {', '.join(map(str, seeds))} | {WRONG[wrong]} | {cells} |\n"
    if worth:
        return print(table, end="")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    text = f"{before}{BEGIN}\n{table}\n{draws:,} ladders per line.\n{END}{rest.partition(END)[2]}"
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
