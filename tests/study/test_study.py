import json
import math
import time
from itertools import pairwise

import pydantic
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from resnet import UserError, study
from resnet.study import Study
from resnet.study.resolve import parse_override
from resnet.study.schema import Profile

PATHS = Study.open().files
NAMES = list(PATHS)
RUNGS = {name: study.load(path) for name, path in PATHS.items()}


def study_in(folder):
    return Study.open().model_copy(update={"folder": folder})


@pytest.fixture
def written(tmp_path):
    """``written(text)`` writes a file with this text beside copies of the shipped rungs."""
    for name in NAMES[:5]:
        (tmp_path / f"{name}.yaml").write_text(PATHS[name].read_text())

    def write(text, name="x"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("model.identity_blocks", [[5, 3, 1], [5, 3, 1], [7, 3, 1], [7, 3, 1], [7, 5, 2]]),
        ("model.dropout", [0, 0, 0, 0, 0.5]),
        ("training.epochs", [25, 25, 25, 50, 75]),
        ("training.batch_size", [32] * 5),
        ("training.learning_rate", [0.001] * 5),
        ("training.early_stopping.monitor", [None, None, "val_accuracy", "val_loss", "val_loss"]),
        ("training.early_stopping.patience", [None, None, 10, 10, 10]),
        ("training.early_stopping.min_delta", [None, None, 1e-4, 1e-4, 1e-4]),
        ("training.reduce_lr_on_plateau.monitor", [None] * 3 + ["val_loss"] * 2),
        ("training.reduce_lr_on_plateau.factor", [None] * 3 + [0.2] * 2),
        ("training.reduce_lr_on_plateau.patience", [None] * 3 + [5] * 2),
        ("training.reduce_lr_on_plateau.min_lr", [None] * 3 + [1e-5] * 2),
        ("data.validation.fraction", [0.2] * 5),
        ("data.validation.subset", ["last"] + ["first"] * 4),
        ("data.validation.augmented", [False] + [True] * 4),
        ("data.validation.drop_remainder", [False] + [True] * 4),
        ("data.augmentation.rotation_range", [None] + [15] * 4),
        ("data.augmentation.width_shift_range", [None] + [0.1] * 4),
        ("data.augmentation.height_shift_range", [None] + [0.1] * 4),
        ("data.augmentation.zoom_range", [None] + [0.1] * 4),
        ("data.augmentation.horizontal_flip", [None] + [True] * 4),
        ("data.augmentation.cutout", [None] + [0] * 4),
    ],
)
def test_the_rungs_have_the_values_that_the_study_states(key, values):
    assert [RUNGS[name].flat().get(key) for name in NAMES[:5]] == values


def test_an_experiment_is_the_same_after_writing_and_loading(tmp_path):
    for name, experiment in RUNGS.items():
        tree = yaml.safe_load(experiment.to_yaml())
        assert tree.pop("name") == name
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(tree))
        again = study.load(path)
        assert again == experiment.model_copy(update={"alternatives": {}})
        assert again.hash() == experiment.hash()


def test_the_hash_depends_only_on_settings_that_affect_the_result():
    experiment = RUNGS["01_template"]
    assert experiment.model_copy(update={"title": "x", "assumed": {}}).hash() == experiment.hash()
    assert len({e.hash() for e in RUNGS.values()}) == len(NAMES)
    for key, value in experiment.flat().items():
        if isinstance(value, float) and value:
            changes = parse_override(f"{key}={json.dumps(value / 2)}")
            assert study.change(experiment, changes, "test").hash() != experiment.hash()


def test_a_new_key_with_a_default_does_not_change_existing_hashes():
    make = pydantic.create_model
    later = make("Later", __base__=study.Training, momentum=(float | None, None))
    schema = make("Schema", __base__=study.Experiment, training=(later, ...))
    before = RUNGS["01_template"]
    # existing runs and checkpoints have these hashes
    assert before.hash().startswith("731afc16e5990f21")
    assert before.trajectory().startswith("1e4eb8e0ee457e3a")
    tree = before.model_dump()
    as_before = schema.model_validate(tree)
    assert as_before.flat()["training.momentum"] is None
    assert (as_before.hash(), as_before.trajectory()) == (before.hash(), before.trajectory())
    tree["training"]["momentum"] = 0.9
    changed = schema.model_validate(tree)
    assert changed.hash() != before.hash()
    assert changed.trajectory() != before.trajectory()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", NAMES[:5]),
        ("1-3", NAMES[:3]),
        ("5,2", [NAMES[1], NAMES[4]]),
        ("vgg, 04_lr_schedule", [NAMES[3], "vgg"]),
        ("all,vgg,1", NAMES),
    ],
)
def test_select_accepts_numbers_ranges_and_names(text, expected):
    assert study.select(text, NAMES) == expected


@pytest.mark.parametrize("text", ["", "6", "3-1", "0-2", "x", "1-", "-", "all,", "99999", "١"])
def test_select_refuses_invalid_selections(text):
    with pytest.raises(UserError, match=r"^rungs "):
        study.select(text, NAMES)


def test_two_rungs_with_the_same_number_are_refused():
    with pytest.raises(UserError, match="rungs 06_mine, 06_other have the same number"):
        study.select("1", [*NAMES, "06_mine", "06_other"])


RATE = "a number, above 0 and at most 10"
WHOLE = "a whole number, at least 1"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("training: {epoch: 3}", ["training.epoch: unknown key", "'epochs'", "batch_size"]),
        (
            "training: {epochs: many}",
            [f"training.epochs: 'many' is not allowed; it must be {WHOLE}"],
        ),
        ("training: {epochs: true}", ["training.epochs: True", WHOLE]),
        ("training: {epochs: 1:30}", ["'1:30'", WHOLE]),
        (f"training: {{epochs: 0x{'f' * 5000}}}", [WHOLE]),
        ("training: {learning_rate: .nan}", ["learning_rate: nan", RATE]),
        ("training: {<<: {epochs: 3}}", ["training.<<: unknown key"]),
        (
            "training: {optimizer: {name: sdg}}",
            ["'sdg' is not known (did you mean 'sgd'?)", "adamw"],
        ),
        ("training: {schedule: {name: cosine}}", ["training.schedule.decay_steps: is missing"]),
        (
            "training: {reduce_lr_on_plateau: {monitor: loss, factor: 0.5, patience: 1, "
            "min_delta: 0, min_lr: 0}, schedule: {name: cosine, decay_steps: 9}}",
            ["training.schedule and reduce_lr_on_plateau: give only one of them"],
        ),
        ("data: {validation: {augmented: no}}", ["'no'", "true or false"]),
        ("model: {architecture: vgg, filters: [0]}", ["model.filters.0: 0 is not allowed", WHOLE]),
        (
            "model: {architecture: vg}",
            ["model.architecture: 'vg' is not known (did you mean 'vgg'?); allowed: residual, vgg"],
        ),
        ("assumed: {training.epoch: why}", ["assumed: 'training.epoch' is not a key"]),
        ('assumed: {training.epochs: "a\\a"}', [r"the character '\x07'"]),
        ("title: 010", ["title: 10", "in quotes"]),
        ("title: ' '", ["title", "blank"]),
        ("title: " + "x" * 81, ["title", "at most 80 characters"]),
        ('title: "a\\e[31m"', ["title", r"the character '\x1b'"]),
        ("name: other", ["name: the program sets this key"]),
    ],
)
def test_a_mistake_in_a_rung_is_described_in_one_line(written, content, words):
    refused(written(f"extends: 01_template\n{content}"), words)


def refused(path, words):
    with pytest.raises(UserError) as caught:
        study.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and message.isprintable()
    for word in words:
        assert word in message


ALIASES = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in pairwise("abcdefghi")
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("extends: nowhere", ["extends: there is no ", "nowhere.yaml"]),
        ("extends: ../../etc/passwd", ["extends: '../../etc/passwd' is not an experiment's name"]),
        ("extends: .hidden", ["'.hidden' is not an experiment's name"]),
        ("extends: x", ["circle: x -> x"]),
        ("extends: y", ["circle: x -> y -> x"]),
        ("title: only", ["model: is missing"]),
        ("", ["contains None; write lines like 'key: value'"]),
        ("a: [1", ["line 1", "not valid YAML"]),
        ("a: 1\na: 2", ["line 2", "the key 'a' is given twice"]),
        ("a: 1\n01: 2", ["line 2", "the key 1 is not text"]),
        (
            "!!python/object/apply:os.system [id]",
            ["line 1", "the tag !!python/object/apply:os.sys"],
        ),
        ("a: 1\nb: !!str 010", ["line 2", "the tag !!str is not supported", "in quotes"]),
        ("title: &a x\nbase:\n  <<: *a", ["line 3", "the alias *a", "write out"]),
        (ALIASES, ["line 2", "alias"]),
        ("".join(f"k{i}: 1\n" for i in range(20_000)), ["longer than 64000 characters"]),
        ("".join(f"k{i}: 1\n" for i in range(6_000)), ["unknown key"]),
        ("[" * 60_000, ["nested more than 20 levels deep"]),
        ('"' + r"\x41" * 15_000 + '"', ["contains", "key: value"]),
        ('a: "\\UFFFFFFFF"', ["not valid YAML"]),
    ],
)
def test_a_file_that_is_not_a_rung_is_refused_within_two_seconds(written, content, words):
    written("extends: x", "y")
    path = written(content)
    start = time.process_time()
    refused(path, words)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("010", 10), ("-08", -8), ("0o10", 8), ("0x1F", 31), ("+5", 5), ("1:30", "1:30")),
        *(("0b1", "0b1"), ("1_000", "1_000"), ("1e3", 1000.0), ("1e-4", 0.0001), (".5", 0.5)),
        *(("5.", 5.0), ("-.INF", -math.inf), (".nan", math.nan), ("1:30.5", "1:30.5")),
        *(("yes", "yes"), ("No", "No"), ("on", "on"), ("OFF", "OFF"), ("True", True)),
        *(("~", None), ("", None), ("Null", None), ("nULL", "nULL"), ("=", "="), ("<<", "<<")),
        *(("2001-01-01", "2001-01-01"), ("'010'", "010"), ("1.", 1.0), ("١", "١")),
        *(("-0.0", -0.0), ("1.5e+3", 1500.0), ("1_0.5", "1_0.5"), (".", "."), ("1e", "1e")),
    ],
)
def test_scalars_are_read_as_yaml_1_2_defines(text, value):
    read = parse_override(f"model.x={text}")["model"]["x"]
    assert repr(read) == repr(value)  # 1, 1.0 and True are equal, but their texts differ


RUNG_5 = RUNGS["05_deeper_dropout"]


@settings(deadline=None)
@given(
    text=st.text(st.characters(codec="utf-8"), max_size=20)
    | st.from_regex("[0-9._:eExob<=~-]{1,8}", fullmatch=True)
)
@example("0o7")
@example("no")
def test_any_text_is_the_same_after_writing_and_reading(text):
    experiment = RUNG_5.model_copy(update={"assumed": {"training.epochs": text}})
    try:
        checked = study.Experiment.model_validate(experiment.model_dump())
    except pydantic.ValidationError:
        return
    again = study.from_yaml(checked.to_yaml(), "test")
    assert again == checked.model_copy(update={"alternatives": {}})
    assert yaml.safe_load(checked.to_yaml())["assumed"] == checked.assumed  # PyYAML reads YAML 1.1


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("+ tiefer, 1\u00a0%\u3000更深", "+ tiefer, 1\u00a0%\u3000更深"),
        ("|\n  two\n  lines\n", "two lines"),
    ],
)
def test_a_title_may_be_in_any_language_and_on_several_lines(written, text, title):
    assert study.load(written(f"extends: 01_template\ntitle: {text}\n")).title == title


def test_the_error_for_an_unknown_key_of_a_profile_names_the_allowed_keys(tmp_path):
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "mine.yaml").write_text("description: x\ndata: digits\nchange: {}")
    with pytest.raises(UserError, match=r"did you mean 'changes'.*allowed: descr"):
        study_in(tmp_path).profile("mine")


def test_the_error_for_an_unreadable_file_gives_the_reason(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml: cannot be read: .*No such file"):
        study.load(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="cannot be read: 'utf-8' codec"):
        study.load(tmp_path / "binary.yaml")


# Examples can share tmp_path: each writes every file it reads. Imports make the first ones slow.
RELAXED = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
FIVE = yaml.safe_dump(RUNG_5.model_dump(exclude={"name"}))
KEYS = sorted({part for key in RUNG_5.flat() for part in key.split(".")})
scalars = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    st.sampled_from(["residual", "vgg", "first", "val_loss", "1e400", "-0", "0x10"]),
)
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
marks = [*"[]{},:?-|>'\"&*!%@#\\\n\t\r", ": ", "- ", "? ", "&a ", "*a", "---\n", "\n  ", "!!str "]
words = ["extends: 01_template\n", "training", "title", "010", "1:30", "0x", "<<", "=", ".inf", "~"]
syntax = st.lists(st.sampled_from([*marks, *words]), max_size=25).map("".join)


def one_line_or_valid(function):
    """Calls a function that may raise only a UserError, with a message of one printable line."""
    try:
        return function()
    except UserError as error:
        assert str(error).isprintable()
        return None


@RELAXED
@given(
    tree=st.dictionaries(st.sampled_from([*KEYS, "model", "data", "training", "assumed"]), trees)
)
def test_any_mapping_loads_or_gives_an_error_of_one_line(tmp_path, tree):
    (tmp_path / "05_deeper_dropout.yaml").write_text(FIVE)
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump({"extends": "05_deeper_dropout"} | tree))
    experiment = one_line_or_valid(lambda: study.load(path))
    assert experiment is None or experiment.training.epochs >= 1


@RELAXED
@given(key=st.sampled_from(sorted(RUNG_5.flat())) | syntax, value=syntax)
def test_any_override_works_or_gives_an_error_of_one_line(key, value):
    one_line_or_valid(lambda: study.change(RUNG_5, parse_override(f"{key}={value}"), "--set"))


@pytest.mark.parametrize(
    ("value", "values"),
    [
        ("16", ["16"]),
        ("16,64, 256", ["16", "64", "256"]),
        ("16,64,16", ["16", "64"]),
        ("[4,8]", ["[4,8]"]),
        ("[4],[4, 8]", ["[4]", "[4, 8]"]),
        ("null,{name: adamw, weight_decay: 0.1}", ["null", "{name: adamw, weight_decay: 0.1}"]),
        ('"a,b"', ['"a,b"']),
        ("'a,b',c", ["'a,b'", "c"]),
        # a text that is not a list stays as it is, and is refused later
        ("", [""]),
        ("16,", ["16,"]),
        ("[4,8", ["[4,8"]),
        ("name: sgd, momentum: 0.9", ["name: sgd, momentum: 0.9"]),
        ("*a,1", ["*a,1"]),
    ],
)
def test_a_list_without_brackets_gives_an_override_per_value(value, values):
    assert study.sweep(f"a.b={value}") == [f"a.b={one}" for one in values]


def test_a_profile_does_not_change_a_block_that_is_null_in_the_rung(monkeypatch):
    changes = {"training": {"epochs": 10, "early_stopping": {"patience": 2}}}
    profile = Profile(description="x", data="digits", changes=changes)
    monkeypatch.setattr(Study, "profile", lambda self, name: profile)
    ladder = Study.open()
    plain = ladder.experiment("01_template", "quick")
    assert (plain.training.epochs, plain.training.early_stopping) == (10, None)
    stopping = ladder.experiment("04_lr_schedule", "quick").training.early_stopping
    assert (stopping.patience, stopping.monitor) == (2, "val_loss")
    profile.changes["training"] = {"early_stoping": {"patience": 2}}
    with pytest.raises(UserError, match="did you mean 'early_stopping'"):
        ladder.experiment("01_template", "quick")
    profile.changes["training"] = {"early_stopping": None}
    assert ladder.experiment("04_lr_schedule", "quick").training.early_stopping is None


def test_a_changed_value_loses_its_reason_unless_a_new_reason_is_given(written):
    text = "extends: 02_augmentation\ntraining: {learning_rate: 0.01}\n"
    before, mine = RUNGS["02_augmentation"].assumed, study.load(written(text)).assumed
    assert before.keys() - mine.keys() == {"training.learning_rate"}
    mine = study.load(written(text + "assumed: {training.learning_rate: a guess}\n")).assumed
    assert mine == before | {"training.learning_rate": "a guess"}


def test_rungs_are_ordered_by_their_numbers_and_hidden_files_are_ignored(tmp_path):
    for name in ("10_x", "6_y", "07_z"):
        (tmp_path / f"{name}.yaml").touch()
    for folder in ("", "baselines", "profiles"):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name in ("._quick.yaml", ".06_x.yaml", "._06_x.yml", ".DS_Store"):
            (tmp_path / folder / name).write_bytes(b"\0")
    assert list(study_in(tmp_path).files) == ["6_y", "07_z", "10_x"]
    study_in(tmp_path).check_names()
    with pytest.raises(UserError, match=r"allowed: full$"):
        study_in(tmp_path).profile("._quick")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("06_mine.yml", "06_mine.yaml"),
        ("06-mine.yaml", "06_mine.yaml"),
        ("6 mine\x1b[31m.yaml", "06_mine.yaml"),
        ("06mine.YAML", "06_mine.yaml"),
        ("06_mine.yaml.txt", "06_mine.yaml"),
        ("baselines/mine.yml", "mine.yaml"),
        ("profiles/6-fast.Yaml", "mine.yaml"),
    ],
)
def test_the_error_for_a_misnamed_file_suggests_a_name(tmp_path, file, name):
    for folder in ("baselines", "profiles"):
        (tmp_path / folder).mkdir()
    for other in ("01_x.yaml", "claims.yaml", "base.yml", "01_x.yaml~", "2024 notes.md"):
        (tmp_path / other).touch()
    study_in(tmp_path).check_names()
    (tmp_path / file).touch()
    with pytest.raises(UserError, match=f"give it a name like {name}") as caught:
        study_in(tmp_path).check_names()
    assert str(caught.value).isprintable()
    assert list(study_in(tmp_path).files) == ["01_x"]
    (tmp_path / file).rename((tmp_path / file).with_name(name))
    study_in(tmp_path).check_names()
    (tmp_path / "baselines" / "01_x.yaml").touch()
    with pytest.raises(UserError, match=r"01_x\.yaml: the file is not used .* no other"):
        study_in(tmp_path).check_names()
