import json
import re
import string

import pydantic
import pytest
import yaml
from conftest import changed_keys
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import runner
from resnet import UserError, config

PATHS = config.find()
NAMES = list(PATHS)


def load(name):
    return config.load(PATHS[name])


def test_the_ladder_is_what_the_study_states():
    rungs = [load(name) for name in NAMES if config.rung_number(name)]
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
        assert rung.data.augmentation.model_dump() == {
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
        tree = config.read_yaml(path)
        if "extends" not in tree:
            continue
        parents = [*path.parent.glob(f"{tree['extends']}.yaml")]
        parent = config.load((parents or [path.parent.parent / f"{tree['extends']}.yaml"])[0])
        child = config.load(path)
        stated = dict(
            config._flatten({k: v for k, v in tree.items() if k in ("model", "data", "training")})
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
        again = config.load(path)
        assert again == experiment.model_copy(update={"alternatives": {}})
        assert again.hash() == experiment.hash()


def test_hash_depends_on_what_shapes_the_result_alone():
    experiment = load("01_template")
    assert experiment.model_copy(update={"title": "x", "assumed": {}}).hash() == experiment.hash()
    hashes = {load(name).hash() for name in NAMES}
    assert len(hashes) == len(NAMES)
    for key, value in experiment.flat().items():
        if isinstance(value, float) and value:
            changes = config.parse_override(f"{key}={json.dumps(value / 2)}")
            assert config.change(experiment, changes, "test").hash() != experiment.hash()


def test_a_key_that_comes_later_leaves_runs_and_states_what_they_are():
    make = pydantic.create_model
    later = make("Later", __base__=config.Training, momentum=(float | None, None))
    schema = make("Schema", __base__=config.Experiment, training=(later, ...))
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
    assert config.select(text, NAMES) == expected


@pytest.mark.parametrize("text", ["", "6", "3-1", "0-2", "x", "1-", "-", "all,", "99999", "١"])
def test_select_refuses(text):
    with pytest.raises(UserError, match="--ladder"):
        config.select(text, NAMES)


def test_two_rungs_of_one_number_are_refused_unless_one_is_named():
    names = [*NAMES, "06_mine", "06_other"]
    for text in ("all", "5-6", "06_mine,06_other"):
        with pytest.raises(UserError, match="06_mine, 06_other: there are two of number 6"):
            config.select(text, names)
    assert config.select("1,06_other", names) == [NAMES[0], "06_other"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("extends: 01_template\ntraining: {epoch: 3}", ["training.epoch", "epochs", "unknown"]),
        ("extends: 01_template\ntraining: {epochs: many}", ["training.epochs", "'many'"]),
        ("extends: 01_template\ntraining: {epochs: 0}", ["training.epochs", "0", "greater"]),
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
        ("extends: 01_template\nmodel: {architecture: vgg}", ["model.filters", "missing"]),
        ("2024-13-45: x", ["YAML"]),
    ],
)
def test_a_mistake_is_one_line_that_names_it(tmp_path, content, words):
    for name in NAMES[:5]:
        (tmp_path / f"{name}.yaml").write_text(PATHS[name].read_text())
    path = tmp_path / "x.yaml"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        config.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    for word in words:
        assert word in message


def test_a_profile_s_mistake_names_a_profile_s_keys(tmp_path):
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "mine.yaml").write_text("description: x\ndata: digits\nchange: {}")
    with pytest.raises(UserError, match=r"did you mean 'changes'.*allowed: descr"):
        config.load_profile("mine", tmp_path)


def test_a_longer_cycle_is_named(tmp_path):
    for name, parent in (("a", "b"), ("b", "c"), ("c", "a")):
        (tmp_path / f"{name}.yaml").write_text(f"extends: {parent}")
    with pytest.raises(UserError, match="a -> b -> c -> a"):
        config.load(tmp_path / "a.yaml")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        config.load(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="cannot be read"):
        config.load(tmp_path / "binary.yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        config.load(tmp_path / "folder.yaml")


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
    experiment = one_line_or_valid(lambda: config.load(path))
    if experiment:
        assert experiment.training.epochs >= 1


@settings(max_examples=300, deadline=None, suppress_health_check=RELAXED)
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    assert one_line_or_valid(lambda: config.load(path)) is None


values = st.text(alphabet=string.printable, max_size=30) | st.sampled_from(
    ["1", "0", "-1", "null", "[1, 2, 3]", "{}", "1e-4", "true", "nan", "&a [*a]", "vgg"]
)


@settings(max_examples=300, deadline=None, suppress_health_check=RELAXED)
@given(key=st.sampled_from(sorted(load("05_deeper_dropout").flat())) | values, value=values)
def test_any_override_works_or_is_refused_in_one_line(key, value):
    def override():
        changes = config.parse_override(f"{key}={value}")
        return config.change(RUNG_5, changes, "--set")

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
    result = CliRunner().invoke(runner.app, ["--dry-run", *words])  # which opens no store
    if isinstance(result.exception, UserError):
        assert str(result.exception).isprintable()
    else:
        assert result.exit_code == 2  # the parser's own complaint
    assert not re.search("Traceback", result.output)


def test_a_profile_varies_only_the_parts_that_a_rung_has(monkeypatch):
    changes = {"training": {"epochs": 10, "early_stopping": {"patience": 2}}}
    profile = config.Profile(description="", data="digits", changes=changes)
    monkeypatch.setattr(config, "load_profile", lambda name: profile)
    paths = config.find()
    plain = config.apply_profile(config.load(paths["01_template"]), "quick")
    assert (plain.training.epochs, plain.training.early_stopping) == (10, None)
    stopping = config.apply_profile(config.load(paths["04_lr_schedule"]), "quick")
    assert stopping.training.early_stopping.patience == 2
    assert stopping.training.early_stopping.monitor == "val_loss"
    changes["training"]["early_stoping"] = {"patience": 2}
    with pytest.raises(UserError, match="did you mean 'early_stopping'"):
        config.apply_profile(config.load(paths["01_template"]), "quick")
    del changes["training"]["early_stoping"]
    changes["training"]["early_stopping"] = None
    off = config.apply_profile(config.load(paths["04_lr_schedule"]), "quick")
    assert off.training.early_stopping is None


def test_a_reason_goes_with_the_value_that_it_was_for(tmp_path):
    for name in ("01_template", "02_augmentation"):
        (tmp_path / f"{name}.yaml").write_text(PATHS[name].read_text())
    path = tmp_path / "03_mine.yaml"
    path.write_text("extends: 02_augmentation\ntraining: {learning_rate: 0.01}\n")
    before, mine = load("02_augmentation").assumed, config.load(path).assumed
    assert before.keys() - mine.keys() == {"training.learning_rate"}
    path.write_text(path.read_text() + "assumed: {training.learning_rate: a guess}\n")
    assert config.load(path).assumed == before | {"training.learning_rate": "a guess"}


def test_rungs_stand_in_the_order_of_their_numbers(tmp_path):
    for name in ("10_x", "6_y", "07_z"):
        (tmp_path / f"{name}.yaml").touch()
    assert list(config.find(tmp_path)) == ["6_y", "07_z", "10_x"]
