"""Reads a study, which is a folder of rungs, baselines, profiles and claims."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from resnet import ROOT, UserError
from resnet.host import command_lines, messages
from resnet.study.files import read_yaml, short_repr
from resnet.study.keys import validate
from resnet.study.resolve import change, load, parse_override
from resnet.study.schema import Experiment, Name, Profile, Strict, Text, rung_number, rungs

SHIPPED = ROOT / "experiments"  # the study that comes with the project
TEMPLATE = Path(__file__).parent / "template"  # ``ladder init`` copies these files


class _About(Strict):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9][\w.-]{0,60}$")]  # the study's name in MLflow
    about: Text  # the study's question in one sentence
    dataset: Name  # the dataset on which the study measured its accuracies
    data: Name | None = None  # path or name of the images; null means the name in ``dataset``
    test_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the images to use for testing, if there are no folders ``train`` and ``test``."""
    results: Name = "results"  # folder of records


class Study(_About):
    """A folder that contains a ``study.yaml`` and the other files of a study."""

    folder: Path
    results: Path  # type: ignore[assignment]  # absolute
    claims_sha256: str

    @classmethod
    def open(cls, folder: str | Path | None = None) -> "Study":
        """Opens the study in a folder, by default the study that comes with the project."""
        folder = Path(folder or SHIPPED).resolve()
        for name in ("study.yaml", "claims.yaml"):
            if not (folder / name).is_file():
                raise UserError(f"--experiments {folder}: holds no {name}; see docs/own-ladder.md")
        path, claims = folder / "study.yaml", folder / "claims.yaml"
        about = validate(_About, read_yaml(path), str(path))
        return cls(
            **about.model_dump(exclude={"results"}),
            folder=folder,
            results=(folder / about.results).resolve(),
            claims_sha256=hashlib.sha256(claims.read_bytes()).hexdigest(),
        )

    @property
    def claims(self) -> Path:
        return self.folder / "claims.yaml"

    @cached_property
    def bounds(self) -> dict[str, Any]:
        """The values in ``claims.yaml`` that decide verdicts, without the texts of claims."""
        tree = read_yaml(self.claims)
        deciding = ("rung", "against", "quantity", "voters", "bound")
        claims = {
            claim["id"]: {key: claim[key] for key in deciding if key in claim}
            for claim in tree.get("claims") or ()
        }
        return {"tolerance": tree.get("tolerance"), **(tree.get("published") or {}), **claims}

    @property
    def dataset_title(self) -> str:  # such as "CIFAR-10"
        from resnet.data import NAMED  # slow to import

        return NAMED[self.dataset].title if self.dataset in NAMED else self.dataset

    @property
    def images(self) -> str:
        """The default of ``--data``: the name of a dataset, or the path of images."""
        from resnet.data import NAMED

        if self.data is None or self.data in NAMED:
            return self.data or self.dataset
        return str(self.folder / self.data)

    @property
    def options(self) -> list[str]:
        return [] if self.folder == SHIPPED else ["--experiments", command_lines.typed(self.folder)]

    def command(self, *words: str, uri: str | None = None) -> str:
        """Returns a ``ladder`` command line for this study."""
        return command_lines.command("ladder", *words, *self.options, uri=uri)

    @cached_property
    def files(self) -> dict[str, Path]:
        """Maps each experiment's name to its file. The rungs come first, in order."""
        paths = {path.stem: path for path in _files(self.folder)}
        baselines = {path.stem: path for path in _files(self.folder / "baselines")}
        return {name: paths[name] for name in rungs(paths)} | baselines

    def experiment(
        self, name: str, profile: str = "full", overrides: Sequence[str] = ()
    ) -> Experiment:
        """Resolves an experiment, and then applies a profile and the ``--set`` overrides.

        If a block such as early_stopping is null in the experiment, a profile keeps it null.
        """
        experiment = load(self.files[name])
        if profile != "full":
            changes = _where_present(experiment.model_dump(), self.profile(profile).changes)
            experiment = change(experiment, changes, f"--profile {profile}: {name}")
        for override in overrides:
            changes = parse_override(override)
            experiment = change(experiment, changes, f"--set {override}: {name}")
        return experiment

    def profile(self, name: str) -> Profile:
        """Loads ``profiles/<name>.yaml``."""
        known = {path.stem: path for path in _files(self.folder / "profiles")}
        if name not in known:
            allowed = ", ".join(["full", *known])
            raise UserError(f"--profile {short_repr(name)} is unknown; allowed: {allowed}")
        return validate(Profile, read_yaml(known[name]), str(known[name]))

    def check_names(self) -> None:
        """Raises a UserError if a file that looks like an experiment or profile is not used."""
        found = {*self.files.values(), *_files(self.folder / "profiles")}
        for pattern in ("[0-9]*", "baselines/*", "profiles/*"):
            for path in self.folder.glob(pattern):
                yaml = re.fullmatch(r"[^.].*\.ya?ml(\.txt)?", path.name, re.IGNORECASE)
                if yaml and path not in found:
                    example = "06_mine.yaml" if path.parent == self.folder else "mine.yaml"
                    raise UserError(
                        f"{messages.one_line(path)}: the file is not used because of its name; "
                        f"give it a name like {example} that no other file has, or move it"
                    )


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!.]*.yaml"))  # macOS writes hidden files such as ._quick.yaml


def _where_present(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _where_present(tree[key], value)
        if isinstance(tree.get(key), dict) and isinstance(value, dict)
        else value
        for key, value in changes.items()
        if not (isinstance(value, dict) and key in tree and tree[key] is None)
    }


def select(text: str, names: Iterable[str]) -> list[str]:
    """Returns the names that ``text`` selects, in the order of ``names``.

    ``text`` lists numbers, ranges (``1-3``), names or ``all`` (every rung), separated by commas.
    If a part selects no experiment, or two rungs have the same number, a UserError is raised.
    """
    names = list(names)
    numbers = {name: number for name in names if (number := rung_number(name)) is not None}
    chosen: set[str] = set()
    for part in map(str.strip, text.split(",")):
        span = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part)
        if part == "all":
            chosen.update(numbers)
        elif part in names:
            chosen.add(part)
        elif span and (wanted := range(int(span[1]), int(span[2] or span[1]) + 1)):
            if missing := {*wanted} - {*numbers.values()}:
                allowed = f"allowed: {', '.join(names)}"
                raise UserError(f"rungs {part}: there is no rung {min(missing)}; {allowed}")
            chosen.update(name for name, number in numbers.items() if number in wanted)
        else:
            raise UserError(
                f"rungs {short_repr(part)}: unknown; allowed: all, numbers (such as 2,5 or 1-3) "
                f"and the names {', '.join(names)}"
            )
    for one, other in pairwise(rungs(names)):
        if numbers[one] == numbers[other]:
            raise UserError(f"rungs {one}, {other} have the same number; rename one of the files")
    return [name for name in names if name in chosen]
