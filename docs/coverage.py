"""How often the report's 95 % intervals cover the truth, simulated: the table in docs/evidence.md.

.venv/bin/python -m docs.coverage
"""

import math
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
"""True ones: two steps bring the same, the most, where which leads is judged worst."""
DEVIATIONS = (0.008, 0.012, 0.012, 0.0026, 0.0027, 0.010)
SEEDS = ((2, 3, 2, 1, 1, 5), (1, 1, 1, 1, 1, 5), (2,) * 6, (3,) * 6, (5,) * 6)
WRONG = {0.0: "right", 0.25: "a quarter off", 0.4: "40 % off"}
"""By the standard deviation of the logarithm of true deviation by scale."""
CASES = [(seeds, wrong) for seeds in SEEDS for wrong in WRONG]
HEADINGS = ("rows", "the worst row", "gains", "largest gain's lead")


def draw(seeds: tuple[int, ...], wrong: float, random: np.random.Generator) -> dict[str, list]:
    """Simulates a ladder of so many seeds per row; ``wrong`` is a key of ``WRONG``.

    Returns, by heading, for each interval whether it covers the truth: 1, 0, or NaN without one.
    """
    scales = np.multiply(DEVIATIONS, np.exp(-wrong * random.standard_normal(len(LADDER))))
    rows = zip(LADDER, MEANS, DEVIATIONS, seeds, scales, strict=True)
    samples = {
        name: Sample(dict(enumerate(random.normal(mean, deviation, n))), scale)
        for name, mean, deviation, n, scale in rows
    }
    shared = Shared.of(samples)
    of = {name: shared.estimate(name, sample) for name, sample in samples.items()}

    def covers(interval: statistics.Interval, truth: float) -> float:
        low, high = interval
        return math.nan if math.isnan(low) else float(low <= truth <= high)

    each = [statistics.contrast([(1, e)]).interval() for e in of.values()]
    gains = [statistics.gain(of[a], of[b]).interval() for a, b in pairwise(LADDER)]
    leads = quantities.leads(LADDER[1], "", LADDER[:-1])
    lead = statistics.least([statistics.weighted(weights, of) for weights in leads])[1]
    return {
        "rows": list(map(covers, each, MEANS)),
        "gains": list(map(covers, gains, np.diff(MEANS))),
        "largest gain's lead": [covers(lead, 0.0)],
    }


def simulate(case: int, draws: int) -> dict[str, float]:
    """Returns, by heading, the share of intervals that cover the truth in simulated ladders.

    ``case`` is an index of ``CASES``.
    """
    random = np.random.default_rng([0, case])
    made = [draw(*CASES[case], random) for _ in range(draws)]
    shares = {key: np.nanmean([m[key] for m in made], axis=0) for key in made[0]}
    found = {key: float(share.mean()) for key, share in shares.items()}
    return found | {"the worst row": float(shares["rows"].min())}


def main(draws: int = 5_000, worth: float = 0) -> None:
    """Writes the table into the page, from DRAWS ladders per line.

    With WORTH, prints the table for scales that are worth so many degrees of freedom.
    """
    statistics.GUESS = worth or statistics.GUESS
    table = f"| seeds of the rows | scales are | {' | '.join(HEADINGS)} |\n{'| --- ' * 6}|\n"
    for case, (seeds, wrong) in enumerate(track(CASES, "simulating")):
        shares = simulate(case, draws)
        cells = " | ".join(f"{100 * shares[heading]:.1f} %" for heading in HEADINGS)
        table += f"| {', '.join(map(str, seeds))} | {WRONG[wrong]} | {cells} |\n"
    if worth:
        return print(table, end="")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    text = f"{before}{BEGIN}\n{table}\n{draws:,} ladders a line.\n{END}{rest.partition(END)[2]}"
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
