import json
import math
import os
import re
import string
import time
from dataclasses import replace
from itertools import pairwise

import pydantic
import pytest
import yaml
from conftest import changed_keys
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import runner
from resnet import UserError, study
from resnet.study import Study
from resnet.study.resolve import parse_override
from resnet.study.schema import Profile, flatten

PATHS = Study.open().files
NAMES = list(PATHS)


def load(name):
    return study.load(PATHS[name])


def study_in(folder):
    return replace(Study.open(), folder=folder)


def test_the_ladder_is_what_the_study_states():
    rungs = [load(name) for name in NAMES if study.rung_number(name)]
    assert [r.model.identity_blocks for r in rungs] == [[5, 3, 1]] * 2 + [[7, 3, 1]] * 2 + [
        [7, 5, 2]
    ]
    assert [r.training.epochs for r in rungs] == [25, 25, 25, 50, 75]
    assert [r.model.dropout for r in rungs] == [0, 0, 0, 0, 0.5]
    assert [r.training.early_stopping and r.training.early_stopping.monitor for r in rungs] == [
        None,
        None,
        "val_accuracy",
        "val_loss",
        "val_loss",
    ]
    for rung in rungs:
        assert rung.training.batch_size == 32
        assert rung.training.learning_rate == 0.001
        assert rung.data.validation.fraction == 0.2
    for rung in rungs[1:]:
        assert rung.data.augmentation.model_dump(exclude_defaults=True) == {
            "rotation_range": 15,
            "width_shift_range": 0.1,
            "height_shift_range": 0.1,
            "zoom_range": 0.1,
            "horizontal_flip": True,
        }
        assert rung.data.validation.subset == "first"
        assert rung.data.validation.augmented
        assert rung.data.validation.drop_remainder
    for rung in rungs[3:]:
        assert rung.training.early_stopping.patience == 10
        assert rung.training.early_stopping.min_delta == 1e-4
        reduce = rung.training.reduce_lr_on_plateau
        assert (reduce.monitor, reduce.factor, reduce.patience, reduce.min_lr) == (
            "val_loss",
            0.2,
            5,
            1e-5,
        )
    assert "training.epochs" in rungs[0].assumed
    assert "training.epochs" not in rungs[1].assumed


def test_files_state_only_what_they_change():
    for path in PATHS.values():
        tree = study.read_yaml(path)
        if "extends" not in tree:
            continue
        parents = [*path.parent.glob(f"{tree['extends']}.yaml")]
        parent = study.load((parents or [path.parent.parent / f"{tree['extends']}.yaml"])[0])
        child = study.load(path)
        stated = dict(
            flatten({k: v for k, v in tree.items() if k in ("model", "data", "training")})
        )
        if child.model.architecture != parent.model.architecture:
            stated = {k: v for k, v in stated.items() if not k.startswith("model.")}
        changed = changed_keys(parent, child)
        # rung 2 repeats epochs: 25 because the study states there what rung 1 assumes
        assert set(stated) - set(changed) <= {"training.epochs"}, path.name


def test_resolved_yaml_loads_to_the_same_experiment(tmp_path):
    for name in NAMES:
        experiment = load(name)
        tree = yaml.safe_load(experiment.to_yaml())
        assert tree.pop("name") == name
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(tree))
        again = study.load(path)
        assert again == experiment.model_copy(update={"alternatives": {}})
        assert again.hash() == experiment.hash()


def test_hash_depends_on_what_shapes_the_result_alone():
    experiment = load("01_template")
    assert experiment.model_copy(update={"title": "x", "assumed": {}}).hash() == experiment.hash()
    hashes = {load(name).hash() for name in NAMES}
    assert len(hashes) == len(NAMES)
    for key, value in experiment.flat().items():
        if isinstance(value, float) and value:
            changes = parse_override(f"{key}={json.dumps(value / 2)}")
            assert study.change(experiment, changes, "test").hash() != experiment.hash()


def test_a_key_that_comes_later_leaves_runs_and_states_what_they_are():
    make = pydantic.create_model
    later = make("Later", __base__=study.Training, momentum=(float | None, None))
    schema = make("Schema", __base__=study.Experiment, training=(later, ...))
    before = load("01_template")
    # as which there are runs and states
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
        ("vgg", ["vgg"]),
        ("vgg, 04_lr_schedule", [NAMES[3], "vgg"]),
        ("all,vgg,1", NAMES),
    ],
)
def test_select(text, expected):
    assert study.select(text, NAMES) == expected


@pytest.mark.parametrize("text", ["", "6", "3-1", "0-2", "x", "1-", "-", "all,", "99999", "١"])
def test_select_refuses(text):
    with pytest.raises(UserError, match=r"^rungs "):
        study.select(text, NAMES)


def test_two_rungs_of_one_number_are_refused_unless_one_is_named():
    names = [*NAMES, "06_mine", "06_other"]
    for text in ("all", "5-6", "06_mine,06_other"):
        with pytest.raises(UserError, match="06_mine, 06_other: there are two of number 6"):
            study.select(text, names)
    assert study.select("1,06_other", names) == [NAMES[0], "06_other"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("extends: 01_template\ntraining: {epoch: 3}", ["training.epoch", "epochs", "unknown"]),
        ("extends: 01_template\ntraining: {epochs: many}", ["training.epochs", "'many'"]),
        (
            "extends: 01_template\ntraining: {epochs: 0}",
            ["training.epochs", "0", "at least 1 and at most"],
        ),
        ("extends: 01_template\ntraining: {epochs: true}", ["training.epochs", "True"]),
        ("extends: 01_template\ntraining: {learning_rate: .nan}", ["learning_rate", "nan"]),
        ("extends: nowhere", ["nowhere"]),
        ("extends: ../../etc/passwd", ["extends"]),
        ("extends: x", ["circle", "x -> x"]),
        ("extends: 01_template\nassumed: {training.epoch: why}", ["training.epoch"]),
        ("title: only", ["is missing"]),
        ("- a list", ["key: value"]),
        ("a: [1", ["line 1", "YAML"]),
        ("a: 1\na: 2", ["twice", "'a'"]),
        ("!!python/object/apply:os.system [id]", ["YAML"]),
        ("", ["key: value"]),
        ("name: other\nextends: 01_template", ["name"]),
        ("2024-13-45: x", ["2024-13-45: unknown key"]),
        ("a: 1\n01: 2", ["line 2", "the key 1 is not text"]),
        ("title: &a x\nbase:\n  <<: *a", ["line 3", "*a", "write out"]),
        ("a: !!bool maybe", ["line 1", "'maybe' is no bool"]),
        ("a: !!int ''", ["line 1", "'' is no int"]),
        ("a: !!timestamp x", ["line 1", "timestamp"]),
        ("extends: 01_template\ntraining: {<<: {epochs: 3}}", ["training.<<: unknown key"]),
        (
            "extends: 01_template\ntraining: {epochs: 1:30}",
            ["'1:30'", "a whole number, at least 1"],
        ),
        ("extends: 01_template\ntraining: {epochs: 1_0}", ["'1_0'", "a whole number, at least 1"]),
        (
            f"extends: 01_template\ntraining: {{epochs: 0x{'f' * 5000}}}",
            ["a whole number, at least 1"],
        ),
        (
            "extends: 01_template\ntraining: {learning_rate: 1e400}",
            ["inf", "a number, above 0 and at most 10"],
        ),
        ("extends: 01_template\ndata: {validation: {augmented: no}}", ["'no'", "true or false"]),
        ("extends: 01_template\ntitle: 010", ["title: 10", "in quotes"]),
        ("extends: 01_template\ntitle: ' '", ["title", "blank"]),
        ("extends: 01_template\ntitle: " + "x" * 81, ["title", "at most 80 characters"]),
        ('extends: 01_template\ntitle: "a\\e[31m"', ["title", r"the character '\x1b'"]),
        ("extends: 01_template\ntitle: a\u202eb", ["title", r"the character '\u202e'"]),
        ('extends: 01_template\nassumed: {training.epochs: "a\\a"}', [r"the character '\x07'"]),
        (
            'extends: 01_template\nalternatives: {training.epochs: [{value: 1, reason: "\\0"}]}',
            [r"the character '\x00'"],
        ),
        ("extends: .hidden", ["'.hidden' is not an experiment's name"]),
        (
            "extends: 01_template\nmodel: {architecture: vgg, filters: [0]}",
            ["model.filters.0: 0 is not allowed", "a whole number, at least 1"],
        ),
        (
            "extends: 01_template\nmodel: {architecture: vgg, filter: [8]}",
            ["model.filter: unknown key (did you mean 'filters'?)", "batch_norm_momentum"],
        ),
        (
            "extends: 01_template\nmodel: {architecture: vg}",
            ["model.architecture: 'vg' is not known (did you mean 'vgg'?); allowed: residual, vgg"],
        ),
        (
            "extends: 01_template\ntraining: {optimizer: {name: sdg}}",
            ["training.optimizer.name: 'sdg' is not known (did you mean 'sgd'?)", "adamw"],
        ),
        (
            "extends: 01_template\ntraining: {optimizer: {name: sgd, momentun: 0.9}}",
            ["training.optimizer.momentun: unknown key (did you mean 'momentum'?)"],
        ),
        (
            "extends: 01_template\ntraining: {schedule: {name: cosine}}",
            ["training.schedule.decay_steps: is missing"],
        ),
        (
            "extends: 04_lr_schedule\ntraining: {schedule: {name: cosine, decay_steps: 9}}",
            ["training.schedule and reduce_lr_on_plateau: give one of them"],
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_it(tmp_path, content, words):
    for name in NAMES[:5]:
        (tmp_path / f"{name}.yaml").write_text(PATHS[name].read_text())
    path = tmp_path / "x.yaml"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        study.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    for word in words:
        assert word in message


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [*{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}]\n"
    for old, new in pairwise("abcdefghi")
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (LAUGHS, "line 2: .*alias"),
        (f"- {LAUGHS}".replace("\n", "\n  ").strip(), "line 2: .*alias"),
        ("&a [*a]", "alias"),
        ("".join(f"k{i}: 1\n" for i in range(20_000)), "longer than 64000 characters"),
        ("".join(f"k{i}: 1\n" for i in range(6_000)), "unknown key.*also wrong: title, model"),
        ("[" * 60_000, "nested more than 20 deep"),
        ("- " * 30_000, "nested more than 20 deep"),
        ("- [[x]]\n" * 7_000, "key: value"),
        ('"' + r"\x41" * 15_000 + '"', "key: value"),
    ],
)
def test_any_file_is_refused_within_two_seconds(tmp_path, content, words):
    path = tmp_path / "x.yaml"
    path.write_text(content)
    start = time.process_time()
    with pytest.raises(UserError, match=words):
        study.load(path)
    assert time.process_time() - start < 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has none")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.yaml")
    with pytest.raises(UserError, match="no file"):
        study.load(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("010", 10), ("-08", -8), ("0o10", 8), ("0x1F", 31), ("+5", 5), ("1:30", "1:30")),
        *(("0b1", "0b1"), ("1_000", "1_000"), ("1e3", 1000.0), ("1e-4", 0.0001), (".5", 0.5)),
        *(("5.", 5.0), ("-.INF", -math.inf), (".nan", math.nan), ("1:30.5", "1:30.5")),
        *(("yes", "yes"), ("No", "No"), ("on", "on"), ("OFF", "OFF"), ("True", True)),
        *(("~", None), ("", None), ("Null", None), ("nULL", "nULL"), ("=", "="), ("<<", "<<")),
        *(("2001-01-01", "2001-01-01"), ("!!str 010", "010"), ("!!float 1", 1.0), ("١", "١")),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    read = parse_override(f"model.x={text}")["model"]["x"]
    assert repr(read) == repr(value)  # which tells 1 from 1.0 and True


@settings(deadline=None)
@given(
    text=st.from_regex(
        r"[-+]?[0-9._:eExob]{1,8}|[-+]?[0-9]+[.][0-9]+([eE][-+]?[0-9]{1,3})?", fullmatch=True
    )
)
def test_a_number_means_itself_or_stays_text(text):
    try:
        read = parse_override(f"model.x={text}")["model"]["x"]
    except UserError:
        return  # such as of a key, "1:"
    if isinstance(read, int):
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        assert (read, "_" in text) == (int(text, base), False)
    elif isinstance(read, float):
        assert (repr(read), "_" in text) == (repr(float(text)), False)
    else:
        assert read == (text if isinstance(read, str) else {text[:-1]: None})  # of "x:"


@settings(deadline=None)
@given(
    text=st.text(st.characters(codec="utf-8"), max_size=20)
    | st.from_regex("[0-9._:eExob<=~-]{1,8}", fullmatch=True)
)
@example("08")
@example("1e3")
@example("0o7")
@example("no")
@example("<<")
def test_text_is_written_so_that_it_is_read_again(text):
    experiment = RUNG_5.model_copy(update={"assumed": {"training.epochs": text}})
    try:
        checked = study.Experiment.model_validate(experiment.model_dump())
    except pydantic.ValidationError:
        return
    again = study.from_yaml(checked.to_yaml(), "test")
    assert again == checked.model_copy(update={"alternatives": {}})
    assert yaml.safe_load(checked.to_yaml())["assumed"] == checked.assumed  # of YAML 1.1


def test_titles_of_all_languages_and_of_several_lines(tmp_path):
    base = tmp_path / "01_template.yaml"
    base.write_text(PATHS["01_template"].read_text())
    path = tmp_path / "06_x.yaml"
    for text, title in {
        "+ tiefer, 1\u00a0%\u3000更深": "+ tiefer, 1\u00a0%\u3000更深",
        ">\n  two\n  lines\n": "two lines",
        "|\n  two\n  lines\n": "two lines",
        "2001-01-01": "2001-01-01",
    }.items():
        path.write_text(f"extends: 01_template\ntitle: {text}\n", encoding="utf-8")
        assert study.load(path).title == title


def test_a_profile_s_mistake_names_a_profile_s_keys(tmp_path):
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "mine.yaml").write_text("description: x\ndata: digits\nchange: {}")
    with pytest.raises(UserError, match=r"did you mean 'changes'.*allowed: descr"):
        study_in(tmp_path).profile("mine")


def test_a_longer_cycle_is_named(tmp_path):
    for name, parent in (("a", "b"), ("b", "c"), ("c", "a")):
        (tmp_path / f"{name}.yaml").write_text(f"extends: {parent}")
    with pytest.raises(UserError, match="a -> b -> c -> a"):
        study.load(tmp_path / "a.yaml")


def test_a_chain_of_a_thousand_files_is_refused(tmp_path):
    for i in range(1000):
        (tmp_path / f"x{i}.yaml").write_text(f"extends: x{i + 1}")
    with pytest.raises(UserError, match="extends: goes on for more than 100 files"):
        study.load(tmp_path / "x0.yaml")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        study.load(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="cannot be read: save it as UTF-8"):
        study.load(tmp_path / "binary.yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        study.load(tmp_path / "folder.yaml")


# tmp_path is overwritten by each example; first examples import slowly on a busy machine
RELAXED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
KEYS = sorted({part for key in load("05_deeper_dropout").flat() for part in key.split(".")})
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
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


def one_line_or_valid(function):
    """Runs it: either it works or it is a UserError of one printable line."""
    try:
        return function()
    except UserError as error:
        assert str(error).isprintable()
        return None


RUNG_5 = load("05_deeper_dropout")
FIVE = yaml.safe_dump(RUNG_5.model_dump(exclude={"name"}))


@settings(max_examples=200, deadline=None, suppress_health_check=RELAXED)
@given(
    tree=st.dictionaries(st.sampled_from([*KEYS, "model", "data", "training", "assumed"]), trees)
)
def test_any_tree_loads_or_is_refused_in_one_line(tmp_path, tree):
    (tmp_path / "05_deeper_dropout.yaml").write_text(FIVE)
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump({"extends": "05_deeper_dropout"} | tree))
    experiment = one_line_or_valid(lambda: study.load(path))
    if experiment:
        assert experiment.training.epochs >= 1


KINDS = ("null", "bool", "int", "float", "str", "seq", "map", "set", "binary", "timestamp", "merge")
tags = [f"!!{kind} " for kind in KINDS]
marks = [*"[]{},:?-|>'\"&*!%@#\\", ": ", "- ", "? ", "&a ", "*a", "---\n", "\n", "\n  ", "\t", "\r"]
words = ["extends: 01_template\n", "training", "title", "010", "1:30", "0x", "<<", "=", ".inf", "~"]
syntax = st.lists(st.sampled_from([*tags, *marks, *words]), max_size=25).map("".join)


@settings(max_examples=25, deadline=None, suppress_health_check=RELAXED)
@given(content=syntax, times=st.integers(100, 60_000))
def test_anything_long_is_refused_within_two_seconds(tmp_path, content, times):
    path = tmp_path / "x.yaml"
    path.write_bytes((content * times).encode()[:64_000])
    start = time.process_time()
    assert one_line_or_valid(lambda: study.load(path)) is None
    assert time.process_time() - start < 2


@settings(max_examples=300, deadline=None, suppress_health_check=RELAXED)
@given(
    content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode) | syntax.map(str.encode)
)
def test_any_bytes_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    assert one_line_or_valid(lambda: study.load(path)) is None


values = st.text(alphabet=string.printable, max_size=30) | st.sampled_from(
    ["1", "0", "-1", "null", "[1, 2, 3]", "{}", "1e-4", "true", "nan", "&a [*a]", "vgg"]
)


@settings(max_examples=300, deadline=None, suppress_health_check=RELAXED)
@given(key=st.sampled_from(sorted(load("05_deeper_dropout").flat())) | values, value=values)
def test_any_override_works_or_is_refused_in_one_line(key, value):
    def override():
        changes = parse_override(f"{key}={value}")
        return study.change(RUNG_5, changes, "--set")

    one_line_or_valid(override)


@example("--set", "0=\r")
@settings(max_examples=60, deadline=None)
@given(
    option=st.sampled_from(["--ladder", "--seeds", "--set", "--profile"]),
    value=st.text(alphabet=string.printable, max_size=20),
)
def test_the_command_line_refuses_nonsense_with_code_2(option, value):
    # a valid rest that would stop before training: the data do not exist
    arguments = {"--ladder": "1", "--data": "/nonexistent"} | {option: value}
    words = [f"{k}={v}" for k, v in arguments.items()]
    result = CliRunner().invoke(runner._app(), ["--dry-run", *words])  # which opens no store
    if isinstance(result.exception, UserError):
        assert str(result.exception).isprintable()
    else:
        assert result.exit_code == 2  # the parser's own complaint
    assert not re.search("Traceback", result.output)


@pytest.mark.parametrize(
    ("value", "values"),
    [
        ("16", ["16"]),
        ("16,64, 256", ["16", "64", "256"]),
        ("16,64,16", ["16", "64"]),
        ("null,0.5", ["null", "0.5"]),
        ("vgg,residual", ["vgg", "residual"]),
        ("[4,8]", ["[4,8]"]),
        ("[4],[4, 8]", ["[4]", "[4, 8]"]),
        ("{name: sgd, momentum: 0.9}", ["{name: sgd, momentum: 0.9}"]),
        ("null,{name: adamw, weight_decay: 0.1}", ["null", "{name: adamw, weight_decay: 0.1}"]),
        ('"a,b"', ['"a,b"']),
        ("'a,b',c", ["'a,b'", "c"]),
        # what is no list is left to be refused as it stands
        ("", [""]),
        ("16,", ["16,"]),
        ("16,,64", ["16,,64"]),
        ("name: sgd, momentum: 0.9", ["name: sgd, momentum: 0.9"]),
        ("[4,8", ["[4,8"]),
        ("]: [", ["]: ["]),
        ("*a,1", ["*a,1"]),
        ("- 4\n- 8", ["- 4\n- 8"]),
    ],
)
def test_a_list_without_brackets_is_a_sweep(value, values):
    assert study.sweep(f"a.b={value}") == [f"a.b={one}" for one in values]


def test_a_profile_varies_only_the_parts_that_a_rung_has(monkeypatch):
    changes = {"training": {"epochs": 10, "early_stopping": {"patience": 2}}}
    profile = Profile(description="x", data="digits", changes=changes)
    monkeypatch.setattr(Study, "profile", lambda self, name: profile)
    ladder = Study.open()
    plain = ladder.experiment("01_template", "quick")
    assert (plain.training.epochs, plain.training.early_stopping) == (10, None)
    stopping = ladder.experiment("04_lr_schedule", "quick")
    assert stopping.training.early_stopping.patience == 2
    assert stopping.training.early_stopping.monitor == "val_loss"
    changes["training"]["early_stoping"] = {"patience": 2}
    with pytest.raises(UserError, match="did you mean 'early_stopping'"):
        ladder.experiment("01_template", "quick")
    del changes["training"]["early_stoping"]
    changes["training"]["early_stopping"] = None
    off = ladder.experiment("04_lr_schedule", "quick")
    assert off.training.early_stopping is None


def test_a_reason_goes_with_the_value_that_it_was_for(tmp_path):
    for name in ("01_template", "02_augmentation"):
        (tmp_path / f"{name}.yaml").write_text(PATHS[name].read_text())
    path = tmp_path / "03_mine.yaml"
    path.write_text("extends: 02_augmentation\ntraining: {learning_rate: 0.01}\n")
    before, mine = load("02_augmentation").assumed, study.load(path).assumed
    assert before.keys() - mine.keys() == {"training.learning_rate"}
    path.write_text(path.read_text() + "assumed: {training.learning_rate: a guess}\n")
    assert study.load(path).assumed == before | {"training.learning_rate": "a guess"}


def test_rungs_stand_in_the_order_of_their_numbers(tmp_path):
    for name in ("10_x", "6_y", "07_z"):
        (tmp_path / f"{name}.yaml").touch()
    assert list(study_in(tmp_path).files) == ["6_y", "07_z", "10_x"]


def test_hidden_files_are_nobodys(tmp_path):
    for folder in ("", "baselines", "profiles"):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name in ("._quick.yaml", ".06_x.yaml", "._06_x.yml", ".DS_Store"):
            (tmp_path / folder / name).write_bytes(b"\0")
    assert study_in(tmp_path).files == {}
    study_in(tmp_path).check_names()
    with pytest.raises(UserError, match=r"allowed: full$"):
        study_in(tmp_path).profile("._quick")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("06_mine.yml", "06_mine.yaml"),
        ("06-mine.yaml", "06_mine.yaml"),
        ("6 mine.yaml", "06_mine.yaml"),
        ("06mine.YAML", "06_mine.yaml"),
        ("06.yaml", "06_mine.yaml"),
        ("06_mine.yaml.txt", "06_mine.yaml"),
        ("06-mine_2.yaml", "06_mine_2.yaml"),
        ("06_a~b.yaml", "06_a_b.yaml"),
        ("06_a\x1b[31m.yaml", "06_a_31m.yaml"),
        ("٦-x.yaml", "06_x.yaml"),
        ("baselines/mine.yml", "mine.yaml"),
        ("profiles/6-fast.Yaml", "6-fast.yaml"),
    ],
)
def test_what_looks_like_an_experiment_is_not_left_out_without_a_word(tmp_path, file, name):
    for folder in ("baselines", "profiles"):
        (tmp_path / folder).mkdir()
    for other in ("01_x.yaml", "claims.yaml", "base.yml", "01_x.yaml~", "2024 notes.md"):
        (tmp_path / other).touch()
    study_in(tmp_path).check_names()
    (tmp_path / file).touch()
    with pytest.raises(UserError, match=f"call it {name}, or") as caught:
        study_in(tmp_path).check_names()
    assert str(caught.value).isprintable()
    assert list(study_in(tmp_path).files) == ["01_x"]
    (tmp_path / file).rename((tmp_path / file).with_name(name))
    study_in(tmp_path).check_names()


def test_of_two_files_of_one_name_neither_is_left_out_without_a_word(tmp_path):
    (tmp_path / "baselines").mkdir()
    for other in ("06_x.yaml", "baselines/06_x.yaml"):
        (tmp_path / other).touch()
    with pytest.raises(UserError, match="another has its name"):
        study_in(tmp_path).check_names()


def test_the_files_of_this_project_are_called_as_they_should():
    Study.open().check_names()
