"""Configuration: inheritance, overrides, every fault at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sunpipe.config import changed_keys, load_config, read_toml, to_dict
from sunpipe.errors import ConfigError
from tests.conftest import REPO


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_every_committed_configuration_is_valid() -> None:
    files = sorted((REPO / "configs").glob("*.toml"))
    assert len(files) >= 3
    for file in files:
        assert load_config(file).name


def test_extends_merges_tables_and_lists_replace(tmp_path: Path) -> None:
    write(tmp_path / "base.toml", 'name = "a"\n[train]\nbatch = 8\nkimg = 1\n')
    child = write(tmp_path / "child.toml", 'extends = "base.toml"\n[train]\nkimg = 2\n')
    cfg = load_config(child, ["train.lr_g=0.5", "name=other", "shard.test_harps=[1, 2]"])
    assert (cfg.name, cfg.train.batch, cfg.train.kimg, cfg.train.lr_g) == ("other", 8, 2, 0.5)
    assert cfg.shard.test_harps == (1, 2)


def test_extending_oneself_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.toml", 'extends = "b.toml"\n')
    write(tmp_path / "b.toml", 'extends = "a.toml"\n')
    with pytest.raises(ConfigError, match="extends itself"):
        read_toml(tmp_path / "a.toml")


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    text = 'name = "x"\ncolour = 1\n[train]\nbach = 4\nbatch = "four"\n[train.model]\nz_dim = 0\n'
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path / "bad.toml", text))
    message = str(caught.value)
    assert "\n" not in message
    for part in ("colour: unknown key", "train.bach: unknown key (did you mean batch?)",
                 "train.batch: Input should be a valid integer", "train.model.z_dim"):  # fmt: skip
        assert part in message


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("name = ", "not valid TOML"),
        ('name = "../../etc"', "name"),
        ('name = "a b"', "name"),
        ('name = "a"\nseed = 1979-05-27', "valid integer"),
        ('name = "a"\nextends = 3', "extends must be"),
        ("seed = 1", "name: missing"),
        ('name = "a"\n[train]\nkimg = nan', "train.kimg"),
        ('name = "a"\ntrain = 3', "train"),
        ('name = "a"\n[directions]\nquantities = ["FOO"]', "directions.quantities: no quantity"),
        (
            'name = "a"\n[sample]\nquantities = ["USFLUX", "USFLUX"]',
            "sample.quantities: a quantity stands twice",
        ),
        ('name = "a"\n[sample]\nquantities = ["CMASKL"]', "sample.quantities: .* maps of a HARP"),
        ('name = "a"\n[search]\nwhere = ""', "search.where"),
    ],
)
def test_bad_files_are_one_clear_line(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        load_config(write(tmp_path / "bad.toml", text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("override", ["train", "=3", "train..batch=1", ".=2"])
def test_malformed_overrides(override: str) -> None:
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        load_config(None, [override])


def test_configurations_are_frozen_and_comparable() -> None:
    cfg = load_config(None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        cfg.seed = 3  # type: ignore[misc]
    other = load_config(None, ["train.model.z_dim=64", "seed=2"])
    assert changed_keys(to_dict(cfg), to_dict(other)) == ["seed", "train.model.z_dim"]


def test_dates_need_no_quotes(tmp_path: Path) -> None:
    path = tmp_path / "dates.toml"
    path.write_text('name = "x"\n[[query.requests]]\nseries = "hmi.sharp_cea_720s"\n'
                    'start = 2011-02-15\nend = "2011-02-16"\nsegments = ["Br"]\n')  # fmt: skip
    (request,) = load_config(path).query.requests
    assert (request.start, request.end) == ("2011-02-15", "2011-02-16")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('cadance = "6h"', "query.requests.0.cadance: unknown key (did you mean cadence?)"),
        ('cadence = "6 hours"', "must be a number and s, m, h or d, such as 6h, got '6 hours'"),
        ("wavelengths = 193", "must be a list in square brackets, got 193"),
    ],
)
def test_mistakes_in_requests_are_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "typo.toml"
    path.write_text('name = "x"\n[[query.requests]]\nseries = "hmi.sharp_cea_720s"\n'
                    f'start = "2011-02-15"\nend = "2011-02-16"\n{line}\n')  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert words in str(caught.value)
