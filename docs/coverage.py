"""How often the report's 95 % intervals cover the truth, simulated: the table in docs/evidence.md.

.venv/bin/python -m docs.coverage
"""

import argparse
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.progress import track

from report.analysis import quantities, statistics
from report.analysis.statistics import Interval, Sample, Shared

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
HEADINGS = ("rows", "the worst row", "gains", "largest gain's lead")


def draw(seeds: tuple[int, ...], wrong: float, random: np.random.Generator) -> dict[str, list]:
    """Which intervals cover the truth in one simulated ladder; NaN where there is none.

    Args:
        seeds: of each row.
        wrong: a key of ``WRONG``.
        random: draws accuracies and scales.

    Returns:
        By heading, 1, 0 or NaN of each interval.
    """
    scales = np.multiply(DEVIATIONS, np.exp(-wrong * random.standard_normal(len(LADDER))))
    samples = {
        name: Sample(dict(enumerate(random.normal(mean, deviation, n))), scale)
        for name, mean, deviation, n, scale in zip(
            LADDER, MEANS, DEVIATIONS, seeds, scales, strict=True
        )
    }
    shared = Shared.of(samples)
    of = {name: shared.estimate(name, sample) for name, sample in samples.items()}
    leads = [
        statistics.weighted(weights, of) for weights in quantities.leads(LADDER[1], "", LADDER[:-1])
    ]

    def covers(interval: Interval, truth: float) -> float:
        low, high = interval
        return math.nan if math.isnan(low) else float(low <= truth <= high)

    each = [statistics.contrast([(1, e)]).interval() for e in of.values()]
    gains = [statistics.gain(of[a], of[b]).interval() for a, b in pairwise(LADDER)]
    return {
        "rows": list(map(covers, each, MEANS)),
        "gains": list(map(covers, gains, np.diff(MEANS))),
        "largest gain's lead": [covers(statistics.least(leads)[1], 0.0)],
    }


CASES = [(seeds, wrong) for seeds in SEEDS for wrong in WRONG]


def simulate(case: int, draws: int) -> dict[str, float]:
    """Shares of intervals that cover the truth, of those there are, by heading.

    Args:
        case: of ``CASES``.
        draws: simulated ladders.
    """
    random = np.random.default_rng([0, case])
    made = [draw(*CASES[case], random) for _ in range(draws)]
    shares = {key: np.nanmean([m[key] for m in made], axis=0) for key in made[0]}
    found = {key: float(share.mean()) for key, share in shares.items()}
    return found | {"the worst row": float(shares["rows"].min())}


def table(draws: int) -> str:
    """As Markdown."""
    lines = [" | ".join(("seeds of the rows", "scales are", *HEADINGS)), " | ".join(["---"] * 6)]
    for case, (seeds, wrong) in enumerate(track(CASES, "simulating")):
        shares = simulate(case, draws)
        cells = [f"{100 * shares[heading]:.1f} %" for heading in HEADINGS]
        lines.append(" | ".join((", ".join(map(str, seeds)), WRONG[wrong], *cells)))
    return "".join(f"| {line} |\n" for line in lines)


def main() -> None:
    """Writes the table into the page, or prints it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=5_000, help="ladders a line of the table")
    worth = "degrees of freedom that a scale is worth, instead of the report's; prints the table"
    parser.add_argument("--worth", type=float, help=worth)
    chosen = parser.parse_args()
    if chosen.worth:
        statistics.GUESS = chosen.worth
        print(table(chosen.draws), end="")
        return
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    text = f"{before}{BEGIN}\n{table(chosen.draws)}\n{chosen.draws:,} ladders a line.\n{END}{after}"
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
