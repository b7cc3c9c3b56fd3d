"""Settings: what is written is what is in force, and a wrong one is named with its remedy."""

from pathlib import Path

import pytest
import yaml
from affect.commands.session import resolve_config
from affect.configs.schema import Config, Section, dump, load, names
from affect.pipeline.errors import ConfigError
from hypothesis import given
from hypothesis import strategies as st


def sections() -> list[tuple[str, type[Section]]]:
    fields = Config.model_fields.items()
    return [
        (name, f.annotation)
        for name, f in fields
        if isinstance(f.annotation, type) and issubclass(f.annotation, Section)
    ]


@pytest.mark.parametrize("name", names())
def test_every_shipped_config_reads_back_what_it_shows(name: str, tmp_path: Path) -> None:
    config = load(name)
    shown = tmp_path / "shown.yaml"
    shown.write_text(dump(config), encoding="utf-8")
    assert config.name == name
    assert load(str(shown)) == config


def test_the_shipped_configs_are_the_documented_ones() -> None:
    assert names() == ("affwild2", "base", "demo", "seed")


def test_the_seed_config_is_the_old_script() -> None:
    config = load("seed")
    assert (config.clip.length, config.clip.hop) == (32, 32)
    assert (config.head.project, config.head.hidden, config.head.dense) == (0, 1024, (512, 256))
    assert (config.head.readout, config.head.bidirectional) == ("clip", False)
    assert config.train.loss == "mse"
    assert config.adapt.epochs == 0


@pytest.mark.parametrize("section", [name for name, _ in sections()])
def test_set_reaches_every_setting(section: str) -> None:
    config = load("demo")
    for key, value in getattr(config, section).model_dump(mode="json").items():
        again = load("demo", [f"{section}.{key}={yaml.safe_dump(value, default_flow_style=True).split(chr(10))[0]}"])
        assert again == config, f"{section}.{key}"


@given(epochs=st.integers(1, 10_000), rate=st.floats(1e-8, 1.0), valence=st.floats(0, 1))
def test_overrides_are_used_as_written(epochs: int, rate: float, valence: float) -> None:
    config = load(
        "demo", [f"train.epochs={epochs}", f"train.learning_rate={rate!r}", f"train.valence_weight={valence!r}"]
    )
    assert (config.train.epochs, config.train.learning_rate, config.train.valence_weight) == (epochs, rate, valence)


def test_the_last_override_wins() -> None:
    assert load("demo", ["train.epochs=3", "train.epochs=4"]).train.epochs == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochz=3", "Did you mean train.epochs?"),
        ("trian.epochs=3", "Did you mean train?"),
        ("train.wholly_unlike=3", "Known: "),
        ("train.epochs=0", "train.epochs is 0"),
        ("train.epochs=many", "train.epochs is 'many'"),
        ("train.schedule=cosin", "'cosine'"),
        ("head.dense=[a]", "head.dense.0 is 'a'"),
        ("train.epochs", "not section.key=value"),
        ("epochs=3", "not section.key=value"),
        ("=", "not section.key=value"),
        ("name.x=3", "name has no keys"),
        ("train.epochs=[", "not valid YAML"),
    ],
)
def test_a_wrong_override_is_named_with_its_remedy(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load("demo", [override])
    assert message in str(caught.value)
    assert "--set" in str(caught.value)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {epochz: 3}", "unknown setting train.epochz. Did you mean train.epochs?"),
        ("train: 3", "train is 3"),
        ("- 1\n- 2", "contains a list"),
        ("train: [", "not valid YAML"),
    ],
)
def test_a_wrong_file_is_named_with_its_remedy(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert caught.value.remedy


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.touch()
    assert load(str(path)) == Config(name="mine")


@pytest.mark.parametrize(("name", "message"), [("dmeo", "Did you mean demo?"), ("zzz", "affwild2, base, demo, seed")])
def test_an_unknown_config_names_the_known_ones(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match="does not exist") as caught:
        load(name)
    assert message in str(caught.value)


def test_the_first_config_is_demo_and_is_remembered(tmp_path: Path) -> None:
    remembered = tmp_path / "config.yaml"
    config, text = resolve_config(remembered, None, [])
    assert config == load("demo")
    assert text == dump(config)


def test_a_named_config_is_stored_and_overrides_are_not(tmp_path: Path) -> None:
    remembered = tmp_path / "config.yaml"
    config, text = resolve_config(remembered, "affwild2", ["train.epochs=3"])
    assert config.train.epochs == 3
    assert text is not None
    remembered.write_text(text, encoding="utf-8")
    assert resolve_config(remembered, None, []) == (load("affwild2"), None)
    assert resolve_config(remembered, "affwild2", []) == (load("affwild2"), None)
    assert resolve_config(remembered, "seed", []) == (load("seed"), dump(load("seed")))


def test_a_broken_config_file_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    remembered = tmp_path / "config.yaml"
    remembered.write_text("trian: {}", encoding="utf-8")
    with pytest.raises(ConfigError, match="--config NAME"):
        resolve_config(remembered, None, [])
    assert resolve_config(remembered, "seed", [])[0] == load("seed")


def test_settings_are_immutable() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load("demo").train.epochs = 3
