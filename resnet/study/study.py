"""A study: a folder of rungs, baselines, profiles, and the claims that they are held against."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from resnet import ROOT, UserError
from resnet.host import shell
from resnet.study.files import read_yaml, short_repr
from resnet.study.keys import explain
from resnet.study.resolve import change, load, parse_override
from resnet.study.schema import Experiment, Name, Profile, Strict, Text, rung_number, rungs

SHIPPED = ROOT / "experiments"
"""The study that comes with the project."""
TEMPLATE = Path(__file__).parent / "template"
"""The files of the study that ``ladder init`` writes."""


class _About(Strict):
    """``study.yaml``."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9][\w.-]{0,60}$")]
    about: Text
    dataset: Name
    data: Name | None = None
    test_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    results: Name = "results"


@dataclass(frozen=True)
class Study:
    """What ``study.yaml`` in a folder says, and what lies beside it.

    ``name`` is that of the MLflow experiment and of the registered models, ``about`` the study in a
    sentence, ``dataset`` the images that its published accuracies are of, ``data`` where these
    images are, if the study says so, ``test_fraction`` the share of them that are test images where
    a folder does not say which, ``results`` the folder of its recorded runs, ``claims_sha256`` of
    the bounds as they are now.
    """

    folder: Path
    name: str
    about: str
    dataset: str
    data: str | None
    test_fraction: float | None
    results: Path
    claims_sha256: str

    @classmethod
    def open(cls, folder: Path | None = None) -> "Study":
        """Opens the study of a folder, by default the one that comes with the project.

        Raises:
            UserError: there is no study, or its ``study.yaml`` is malformed.
        """
        folder = (folder or SHIPPED).resolve()
        path = folder / "study.yaml"
        if not path.is_file():
            raise UserError(
                f"--experiments {folder}: holds no study.yaml; docs/own-ladder.md tells how to "
                "make a study"
            )
        try:
            about = _About.model_validate(read_yaml(path))
        except ValidationError as error:
            raise explain(str(path), error, _About) from None
        claims = folder / "claims.yaml"
        if not claims.is_file():
            raise UserError(f"{claims}: there is no such file; what is the study held against?")
        digest = hashlib.sha256(claims.read_bytes()).hexdigest()
        results = (folder / about.results).resolve()
        images = about.dataset, about.data, about.test_fraction
        return cls(folder, about.name, about.about, *images, results, digest)

    @property
    def claims(self) -> Path:
        """The file of published accuracies and claims."""
        return self.folder / "claims.yaml"

    @cached_property
    def bounds(self) -> dict[str, Any]:
        """What decides verdicts in ``claims.yaml``: each figure and bound by its name.

        A claim's text and its reasons are left out, so that rewording them changes nothing.
        """
        tree = read_yaml(self.claims)
        deciding = ("rung", "against", "quantity", "voters", "bound")
        claims = {
            claim["id"]: {key: claim[key] for key in deciding if key in claim}
            for claim in tree.get("claims") or ()
            if isinstance(claim, dict) and "id" in claim
        }
        return {"tolerance": tree.get("tolerance"), **(tree.get("published") or {}), **claims}

    @property
    def dataset_title(self) -> str:
        """What its published accuracies are of, as people write it."""
        from resnet.data import NAMED  # takes a while to import

        return NAMED[self.dataset].title if self.dataset in NAMED else self.dataset

    @property
    def images(self) -> str:
        """What ``--data`` is by default: a dataset's name, or a path to a folder or archive."""
        from resnet.data import NAMED

        if self.data is None or self.data in NAMED:
            return self.data or self.dataset
        return str(self.folder / self.data)

    @property
    def options(self) -> list[str]:
        """What names it in a command."""
        return [] if self.folder == SHIPPED else ["--experiments", shell.typed(self.folder)]

    def command(self, *words: str, uri: str | None = None) -> str:
        """Writes :func:`resnet.host.shell.command` of ``ladder`` for this study."""
        return shell.command("ladder", *words, *self.options, uri=uri)

    @cached_property
    def files(self) -> dict[str, Path]:
        """Every experiment file by name, the numbered rungs first, in order."""
        paths = {path.stem: path for path in _files(self.folder)}
        return {name: paths[name] for name in rungs(paths)} | {
            path.stem: path for path in _files(self.folder / "baselines")
        }

    def experiment(
        self, name: str, profile: str = "full", overrides: Sequence[str] = ()
    ) -> Experiment:
        """Resolves an experiment with the changes of a profile, then of each ``--set``.

        Raises:
            UserError: a file is malformed, or a change is not allowed.
        """
        experiment = self.varied(load(self.files[name]), profile)
        for override in overrides:
            changes = parse_override(override)
            experiment = change(experiment, changes, f"--set {override}: {name}")
        return experiment

    def varied(self, experiment: Experiment, profile: str) -> Experiment:
        """Varies an experiment as a profile says; ``full`` leaves it as it is.

        A part that it does not have (its ``early_stopping`` is null) is not given to it.
        """
        if profile == "full":
            return experiment
        tree = experiment.model_dump()
        changes = _where_present(tree, self.profile(profile).changes)
        return change(experiment, changes, f"--profile {profile}: {experiment.name}")

    def profile(self, name: str) -> Profile:
        """Loads ``profiles/<name>.yaml``.

        Raises:
            UserError: there is no such profile, or it is malformed.
        """
        known = {path.stem: path for path in _files(self.folder / "profiles")}
        if name not in known:
            allowed = ", ".join(["full", *known])
            raise UserError(f"--profile {short_repr(name)}: allowed: {allowed}")
        try:
            return Profile.model_validate(read_yaml(known[name]))
        except ValidationError as error:
            raise explain(str(known[name]), error, Profile) from None

    def check_names(self) -> None:
        """Refuses a file that :attr:`files` and :meth:`profile` leave out though it looks meant.

        Raises:
            UserError: there is one; the line says what to call it.
        """
        ending = re.compile(r"\.ya?ml(\.txt)?$", re.IGNORECASE)
        numbered = (path for path in self.folder.glob("*") if path.name[0].isdecimal())
        found = {*self.files.values(), *_files(self.folder / "profiles")}
        for path in (*numbered, *self.folder.glob("baselines/*"), *self.folder.glob("profiles/*")):
            if path in found or path.name.startswith(".") or not ending.search(path.name):
                continue
            name = re.sub(r"[^\w.-]+", "_", ending.sub("", path.name))
            if path.parent == self.folder:
                number = re.split(r"\D", name)[0]
                name = f"{int(number):02}_{name.removeprefix(number).lstrip('_.-') or 'mine'}"
            way_out = (
                f"call it {name}.yaml" if path.name != f"{name}.yaml" else "another has its name"
            )
            raise UserError(
                f"{shell.one_line(path)}: would be left out: {way_out}, or put it elsewhere"
            )


def _files(folder: Path) -> list[Path]:
    """A folder's YAML files; hidden ones, such as ``._quick.yaml`` of macOS, are nobody's."""
    paths = sorted(folder.glob("*.yaml"))
    return [path for path in paths if path.stem.isprintable() and not path.name.startswith(".")]


def _where_present(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _where_present(tree[key], value)
        if isinstance(tree.get(key), dict) and isinstance(value, dict)
        else value
        for key, value in changes.items()
        if not (isinstance(value, dict) and key in tree and tree[key] is None)
    }


def select(text: str, names: Iterable[str]) -> list[str]:
    """Resolves an option's value to experiments.

    Args:
        text: comma-separated: ``all`` (the numbered rungs), numbers, ranges ``1-3``, names.
        names: the experiments there are.

    Returns:
        Names in the ladder's order, each once.

    Raises:
        UserError: a part names nothing there is, or two of the chosen have one number.
    """
    names = list(names)
    numbers = {name: number for name in names if (number := rung_number(name)) is not None}
    chosen: set[str] = set()
    for part in (part.strip() for part in text.split(",")):
        span = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part)
        if part == "all":
            chosen.update(numbers)
        elif span and span[1]:
            wanted = range(int(span[1]), int(span[2] or span[1]) + 1)
            missing = [str(number) for number in wanted if number not in numbers.values()]
            if missing or not wanted:
                raise UserError(
                    f"rungs {part}: there is no rung {missing[0] if missing else part}; "
                    f"allowed: {min(numbers.values(), default=0)} to "
                    f"{max(numbers.values(), default=0)}"
                )
            chosen.update(name for name, number in numbers.items() if number in wanted)
        elif part in names:
            chosen.add(part)
        else:
            raise UserError(
                f"rungs {short_repr(part)}: allowed: all, numbers such as 2,5 or 1-3, "
                f"or a name: {', '.join(names)}"
            )
    for one, other in pairwise(rungs(chosen)):
        if numbers[one] == numbers[other]:
            raise UserError(
                f"rungs {short_repr(text)}: {', '.join(sorted((one, other)))}: there are two of "
                f"number {numbers[one]}; name one of them, or give one another number"
            )
    return [name for name in names if name in chosen]
