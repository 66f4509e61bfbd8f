"""Encoder, embeddings, index and search on the bundled records."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from sunpipe.config import load_config
from sunpipe.embed.embed import embed
from sunpipe.embed.encoder import FieldEncoder
from sunpipe.embed.interrogate import interrogate
from sunpipe.embed.latent_query import latent_query
from sunpipe.embed.query import cut_query, fits_query, seed_query
from sunpipe.embed.searches import read_hits, read_queries, read_search
from sunpipe.errors import DataError, UsageError
from sunpipe.fits import read_vector
from sunpipe.hdf5 import new_hdf5
from sunpipe.index.build import build
from sunpipe.index.cli import app
from sunpipe.index.search import record_query
from sunpipe.index.store import load_index
from sunpipe.latent.generator import Generator
from sunpipe.latent.samples import Samples, write_samples
from sunpipe.physics.channels import apply_symmetry
from sunpipe.settings import Config
from sunpipe.shards.reader import ShardReader
from sunpipe.train.ssl import train_ssl
from tests.conftest import REPO, run_cli
from tests.unit.latent_fake import FakeGenerator

HARP_6060 = "hmi.sharp_cea_720s[6060][2015.10.30_00:00:00_TAI]"
LATER = "hmi.sharp_cea_720s[6060][2015.10.30_00:12:00_TAI]"
STEM = REPO / "sunpipe/samples/hmi.sharp_cea_720s.6060.20151030_000000_TAI"
FITS = tuple(Path(f"{STEM}.{part}.fits") for part in ("Br", "Bt", "Bp"))


def config(*overrides: str) -> Config:
    return load_config(REPO / "configs/tiny.toml", overrides)


def index_command(*args: str | Path, root: Path) -> subprocess.CompletedProcess[str]:
    """``python -m sunpipe.index ARGS``."""
    import os

    command = [sys.executable, "-m", "sunpipe.index", *map(str, args)]
    env = {**os.environ, "SUNPIPE_ROOT": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, env=env, timeout=200, check=False
    )


@pytest.fixture(scope="module")
def built(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data root with encoder, embeddings and index."""
    root = tmp_path_factory.mktemp("built") / "root"
    shutil.copytree(tiny_root, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUNPIPE_ROOT", str(root))
        train_ssl(config())
        embed(config())
        build(root / "embeddings/tiny", root / "index/tiny")
        yield root


@pytest.fixture
def inside(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A writable copy of `built`, as the data root."""
    root = tmp_path / "root"
    shutil.copytree(built, root)
    monkeypatch.setenv("SUNPIPE_ROOT", str(root))
    return root


def test_held_out_6060_finds_itself_12_minutes_later(built: Path) -> None:
    for how in (("--record", HARP_6060), ("--fits", *FITS)):
        done = index_command("search", built / "index/tiny", *how, "-k", "10", "--json", root=built)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert answer["query"]["kind"] == how[0].removeprefix("--")
        assert answer["query"]["record"] == HARP_6060
        assert [hit["record"] for hit in answer["hits"]].count(HARP_6060) == 0
        first, second = answer["hits"][:2]
        assert first["record"] == LATER
        assert first["harpnum"] == 6060
        assert first["t_rec"] == "2015.10.30_00:12:00_TAI"
        assert first["split"] == "test"
        assert first["distance"] < second["distance"] / 2
        assert first["keywords"]["USFLUX"] == pytest.approx(3e21, rel=0.2)
        assert len(answer["hits"]) == 3  # all other records there are
        assert answer["seconds"] >= 0


def test_files_and_record_ask_the_same_question(built: Path) -> None:
    index = load_index(built / "index/tiny")
    by_record = record_query(index, HARP_6060)
    by_fits = fits_query(index.info, FITS)
    assert by_fits.about["tiles"] == by_record.about["tiles"]
    unit = by_fits.vectors / np.linalg.norm(by_fits.vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(unit, by_record.vectors, atol=1e-4)


def test_tiles_of_files_are_the_stored_tiles_to_the_bit(built: Path) -> None:
    reader = ShardReader(built / "shards/tiny")
    place = {
        (row["tile_y"], row["tile_x"]): row["row"]
        for row in reader.records.to_pylist() if row["record"] == HARP_6060
    }  # fmt: skip
    tiles, corners = cut_query(read_vector(*FITS), load_index(built / "index/tiny").info)
    assert [tuple(corner) for corner in corners] == list(place)
    assert tiles.dtype == np.float32
    np.testing.assert_array_equal(tiles, reader.images(list(place.values())))


def test_an_index_without_the_orbit_is_current_to_its_own_settings(inside: Path) -> None:
    from sunpipe.paths import Layout
    from sunpipe.report.sources import Sources

    plain = config("embed.orbit=false")
    assert Sources(config(), Layout.current()).index.state == "current"
    assert Sources(plain, Layout.current()).index.state == "stale"
    embed(plain)
    build(inside / "embeddings/tiny", inside / "index/tiny")
    assert Sources(plain, Layout.current()).index.state == "current"
    assert Sources(config(), Layout.current()).index.state == "stale"


def test_vectors_do_not_feel_mirrors_turns_and_polarity(built: Path) -> None:
    reader = ShardReader(built / "shards/tiny", splits=("test",))
    fields = torch.from_numpy(reader.images(reader.rows[:6]))
    run = built / "runs/00000-tiny-ssl"
    encoder, plain = FieldEncoder.load(run), FieldEncoder.load(run, orbit=False)
    assert encoder.card.digest != plain.card.digest
    before = encoder.vectors(fields)
    for name in ("flip_horizontal", "flip_vertical", "rotate90", "reverse_polarity"):
        turned = apply_symmetry(fields, reader.info.channels, name)
        np.testing.assert_allclose(
            encoder.vectors(turned), before, atol=2e-4 * np.abs(before).max()
        )
        assert np.abs(plain.vectors(turned) - plain.vectors(fields)).max() > 1e-3


def test_array_parts_in_any_order_equal_the_whole(inside: Path) -> None:
    folder = inside / "embeddings/tiny"
    names = [path.name for path in sorted(folder.iterdir())]
    whole = {name: (folder / name).read_bytes() for name in names if name != "embedding.json"}
    shutil.rmtree(folder)
    assert not embed(config(), "3/3")["complete"]
    assert not (folder / "embedding.json").exists()
    assert not embed(config(), "1/3")["complete"]
    last = embed(config(), "2/3")
    assert last["complete"]
    assert last["missing"] == []
    assert {path.name for path in folder.iterdir()} == set(names)
    for name, content in whole.items():
        assert (folder / name).read_bytes() == content, name
    # Beside the vectors stand the rows they belong to.
    table = pq.read_table(folder / "metadata.parquet")
    reader = ShardReader(inside / "shards/tiny")
    place = len(table) - 1
    stored = np.load(folder / table["embedding"][place].as_py())[table["vector"][place].as_py()]
    encoder = FieldEncoder.load(inside / "runs/00000-tiny-ssl")
    again = encoder.vectors(reader.images([table["row"][place].as_py()]))[0]
    np.testing.assert_allclose(stored, again, rtol=1e-3, atol=1e-5)


def test_embed_again_is_cheap_and_sees_what_changed(inside: Path) -> None:
    shards = embed(config())["kept"]
    assert shards > 1
    part = inside / "embeddings/tiny/embedding-00001.npy"
    part.write_bytes(part.read_bytes()[:100])
    again = embed(config())
    assert (again["embedded"], again["kept"]) == (1, shards - 1)
    assert embed(config("embed.orbit=false"))["embedded"] == shards
    assert embed(config('embed.splits=["test"]'))["vectors"] < again["vectors"]


def test_an_index_of_another_encoder_is_refused_by_name(inside: Path) -> None:
    train_ssl(config("name=other", "seed=7", "ssl.kimg=0.016"))
    asked = ["search", str(inside / "index/tiny"), "--fits", *map(str, FITS)]
    with pytest.raises(DataError, match=r"the encoder of 00001-other-ssl is .*not the wanted"):
        app([*asked, "--encoder", "other-ssl"], standalone_mode=False)
    # A newer run of the same name: embeddings and index still say which encoder they need.
    train_ssl(config("ssl.kimg=0.016"), new=True)
    load_index(inside / "index/tiny")
    assert fits_query(load_index(inside / "index/tiny").info, FITS).vectors.shape[1] == 16
    shutil.rmtree(inside / "runs/00000-tiny-ssl")
    with pytest.raises(DataError, match="no run '00000-tiny-ssl'"):
        fits_query(load_index(inside / "index/tiny").info, FITS)


def test_bad_questions_are_one_line(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torn = tmp_path / FITS[0].name
    torn.write_bytes(FITS[0].read_bytes()[:20000])
    for args, kind, message in (
        (("--fits", torn, *FITS[1:]), DataError, "hmi.sharp_cea_720s.6060"),
        (("--fits", FITS[1], FITS[0], FITS[2]), DataError, "is named Bt, not Br"),
        (("--record", "hmi.sharp_cea_720s[6060][2015.10.30_00:24:00_TAI]"), UsageError, "near: "),
        ((), UsageError, "takes one of --fits"),
        (("--seed", "1"), UsageError, "--seed and --run go together"),
        (("--record", LATER, "--run", "x"), UsageError, "--run goes with --seed or --latent"),
        (("--record", LATER, "--seed", "1", "--run", "x"), UsageError, "not --record and --seed"),
        (("--record", LATER, "--where", "TOTUSHJ > 3"), UsageError, "TOTUSJH?"),
        (("--seed", "1", "--run", "nothing"), DataError, "no run 'nothing'"),
    ):
        with pytest.raises(kind) as caught:
            app(["search", str(built / "index/tiny"), *map(str, args)], standalone_mode=False)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError):  # one line in the command as well, see below
        app(["search", str(built / "index/tiny"), "--fits", "none.fits", "none.fits", "none.fits"],
            standalone_mode=False)  # fmt: skip
    assert capsys.readouterr().out == ""
    done = index_command("search", built / "index/tiny", "--fits", "none.fits", *FITS[1:],
                         root=built)  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("sunpipe: No such file or directory: none.fits")
    assert done.stdout == ""


def test_a_condition_that_nothing_satisfies(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--where", "USFLUX > 1e30", "--json")
    app(["search", str(built / "index/tiny"), "--record", LATER, *where], standalone_mode=False)
    answer = capsys.readouterr()
    assert json.loads(answer.out)["hits"] == []
    assert "no observation in the index satisfies this:\n  USFLUX > 1e30" in answer.err


def test_another_scale_or_a_quiet_patch_is_refused(built: Path) -> None:
    import dataclasses

    info = load_index(built / "index/tiny").info
    found = read_vector(*FITS)
    with pytest.raises(DataError, match=r"pixels of 2[0-9]+.* km, the index was made of 14"):
        cut_query(dataclasses.replace(found, pixel_cm=2 * found.pixel_cm), info)
    with pytest.raises(DataError, match="has no tile that the dataset tiny would keep"):
        cut_query(dataclasses.replace(found, fields=found.fields / 100), info)
    with pytest.raises(DataError, match=r"or too strong \(int16\)"):
        cut_query(dataclasses.replace(found, fields=np.full_like(found.fields, 7000.0)), info)
    euv = dataclasses.replace(info, dataset={**info.dataset, "channels": ["171"], "pixel_cm": 1.0})
    with pytest.raises(DataError, match="has channels 171, which three FITS files"):
        cut_query(found, euv)
    half = found.fields.copy()
    half[:, :, : half.shape[2] // 2] = np.nan
    fields, corners = cut_query(dataclasses.replace(found, fields=half), info)
    assert 0 < len(corners) < len(cut_query(found, info)[1])
    assert np.isfinite(fields).all()


def test_index_command_has_two_faces(built: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    folders = ("--embeddings", built / "embeddings/tiny", "--out", out)
    direct = index_command("build", *folders, "--json", root=tmp_path / "untouched")
    assert direct.returncode == 0, direct.stderr
    assert not (tmp_path / "untouched").exists()
    made = json.loads(direct.stdout)
    about = json.loads(index_command("info", out, "--json", root=built).stdout)
    assert about["kind"] == "flat"
    assert about["recall"] == 1.0
    assert about["count"] == made["count"] == load_index(built / "index/tiny").info.count
    same = run_cli("index", "build", "-c", REPO / "configs/tiny.toml", "--json", root=built)
    assert json.loads(same.stdout)["files"] == made["files"]
    good = index_command("verify", out, "--json", root=built)
    assert (good.returncode, json.loads(good.stdout)["ok"]) == (0, True)
    faiss = out / "vectors.faiss"
    content = bytearray(faiss.read_bytes())
    content[-3] ^= 4
    faiss.write_bytes(bytes(content))
    bad = index_command("verify", out, "--json", root=built)
    assert (bad.returncode, json.loads(bad.stdout)["ok"]) == (1, False)
    refused = index_command("search", out, "--record", LATER, root=built)
    assert refused.returncode == 1
    assert "SHA-256" in refused.stderr
    usage = index_command("build", "--out", out, root=built)
    assert usage.returncode == 2


def test_index_core_loads_no_torch(built: Path) -> None:
    code = (
        "import sys; from sunpipe.index import build, search, store, where\n"
        f"index = store.load_index({str(built / 'index/tiny')!r})\n"
        f"hits = search.search(index, search.record_query(index, {HARP_6060!r}), 3)\n"
        "assert hits and 'torch' not in sys.modules, 'torch was loaded'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Bipoles(FakeGenerator):
    """Analytic patches in the channels and at the scale of the dataset."""

    def __init__(self, pixel_cm: float, digest: str = "f" * 64) -> None:
        super().__init__(digest)
        self.channels, self.pixel_cm, self.run = ["Br", "Bt", "Bp"], pixel_cm, "00009-tiny"

    def fields(self, w: torch.Tensor, noise: str = "const") -> torch.Tensor:
        return super().fields(w, noise)[:, [1, 2, 0]]


@pytest.fixture
def generator(inside: Path, monkeypatch: pytest.MonkeyPatch) -> Bipoles:
    """Stands where a trained run would."""
    folder = inside / "runs/00009-tiny"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    pixel = float(np.median(ShardReader(inside / "shards/tiny").pixel_cm))
    fake = Bipoles(pixel)
    monkeypatch.setattr(Generator, "load", lambda folder, device=None: fake)
    return fake


def test_generated_patches_are_answered_by_real_ones(inside: Path, generator: Bipoles) -> None:
    first = interrogate(config("search.queries=12", "search.k=2"))
    assert first["queries"] == first["answered"] == 12
    assert first["source"] == "seeds"
    folder = inside / "searches/tiny"
    hits, about = read_hits(folder), read_search(folder)
    assert hits["query"].to_pylist() == [number for number in range(12) for _ in range(2)]
    assert hits["rank"].to_pylist() == [1, 2] * 12
    near = np.asarray(hits["distance"]).reshape(12, 2)
    assert (near[:, 0] <= near[:, 1]).all()
    records = np.array(hits["record"].to_pylist()).reshape(12, 2)
    assert (records[:, 0] != records[:, 1]).all()
    fields, w = read_queries(folder)
    assert fields.shape == (12, 3, 32, 32)
    np.testing.assert_array_equal(fields, generator.fields(torch.from_numpy(w)).numpy())
    # Both sides are measured by one function: the matched tile's flux is its pixels' flux.
    reader = ShardReader(inside / "shards/tiny")
    row = hits["row"][0].as_py()
    assert reader.records["record"][row].as_py() == hits["record"][0].as_py()
    tile_flux = np.abs(reader.images([row])[0, 0]).sum() * reader.pixel_cm[row] ** 2
    assert 0.3 < hits["match_USFLUX"][0].as_py() / tile_flux <= 1.001
    flux = about.quantities["USFLUX"]
    assert flux["unit"] == "Mx"
    assert flux["n"] == 12
    assert -1 <= flux["spearman"] <= 1
    assert abs(flux["pearson_shuffled"]) < 0.2
    assert sum(about.records.values()) == 12
    assert about.made_from["generator"] == generator.digest
    again = interrogate(config("search.queries=12", "search.k=2"))
    assert again["skipped"]
    assert not interrogate(config("search.queries=5", "search.k=2"))["skipped"]


def test_samples_are_the_queries_where_they_exist(inside: Path, generator: Bipoles) -> None:
    w = np.random.default_rng(0).normal(size=(6, generator.w_dim)).astype(np.float32)
    recipe = {"generator": generator.digest, "seed": 5, "psi": 0.7, "styles": 1,
              "noise": "const", "quantities": ["USFLUX"]}  # fmt: skip
    path = inside / "latents/tiny/samples.h5"
    write_samples(path, Samples(w, w, ["USFLUX"], ["Mx"], np.ones((6, 1)), recipe))
    found = interrogate(config("search.queries=4"))
    assert (found["source"], found["queries"]) == ("samples", 4)
    np.testing.assert_array_equal(read_queries(inside / "searches/tiny")[1], w[:4])
    assert interrogate(config("search.queries=10"))["queries"] == 6
    generator.digest = "a" * 64
    with pytest.raises(DataError, match=r"was made by generator ffffffffffff.*run sunpipe sample"):
        interrogate(config())


def test_fresh_seeds_are_what_sample_would_draw(inside: Path, generator: Bipoles) -> None:
    from sunpipe.latent.sample import sample

    styles = ("sample.styles=2", "sample.count=6", "sample.batch=4", 'sample.quantities=["USFLUX"]')
    asked = config(*styles, "search.queries=6")
    assert interrogate(asked)["source"] == "seeds"
    folder = inside / "searches/tiny"
    fresh, w = read_queries(folder)
    assert w.shape == (6, generator.num_ws, generator.w_dim)
    assert read_search(folder).made_from["styles"] == 2
    sample(config(*styles))
    assert interrogate(asked)["source"] == "samples"
    drawn, again = read_queries(folder)
    np.testing.assert_array_equal(w, again)
    np.testing.assert_array_equal(fresh, drawn)
    # The control is dealt by the seed of the configuration, wherever the queries come from.
    path = inside / "latents/tiny/samples.h5"
    before = read_search(folder).quantities["USFLUX"]
    other = interrogate(config(*styles, "search.queries=6", f"seed={asked.seed + 1}"))
    assert (other["source"], other["skipped"], path.is_file()) == ("samples", False, True)
    after = read_search(folder).quantities["USFLUX"]
    assert (after["pearson"], after["pearson_shuffled"] == before["pearson_shuffled"]) == (
        before["pearson"], False
    )  # fmt: skip


def test_search_stage_refuses_what_does_not_belong_together(
    inside: Path, generator: Bipoles
) -> None:
    with pytest.raises(DataError, match=r"no observation satisfies search\.where"):
        interrogate(config('search.where="USFLUX > 1e30"'))
    generator.pixel_cm *= 2
    with pytest.raises(DataError, match="pixels of"):
        interrogate(config())
    generator.pixel_cm /= 2
    generator.channels = ["Bp", "Br", "Bt"]
    with pytest.raises(DataError, match="takes Br, Bt, Bp at 32 x 32, but generator"):
        interrogate(config())
    generator.channels = ["Br", "Bt", "Bp"]
    index = load_index(inside / "index/tiny")
    query = seed_query(index.info, 3, "tiny")
    assert query.vectors.shape == (1, 16)
    assert query.about["seed"] == 3
    info = json.loads((inside / "shards/tiny/dataset.json").read_text())
    info["files"]["records.parquet"] = "0" * 64
    (inside / "shards/tiny/dataset.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match="changed since the index was built"):
        interrogate(config())
    assert not (inside / "searches/tiny").exists()


def test_a_latent_file_asks_as_its_seed_does(inside: Path, generator: Bipoles) -> None:
    info = load_index(inside / "index/tiny").info
    w = generator.map(generator.sample_z(3, 3)).numpy()
    path = inside / "walk.h5"
    with new_hdf5(path) as file:
        file.attrs["generator"], file.attrs["run"] = generator.digest, "00009-tiny"
        file.create_dataset("w", data=w[-1])
        file.create_dataset("path", data=w)
    by_seed = seed_query(info, 3, "00009-tiny")
    first = latent_query(info, path, frame=0, run="00009-tiny")
    np.testing.assert_array_equal(first.vectors, by_seed.vectors)
    assert first.about["frame"] == 0
    assert first.picture is not None
    assert first.picture.shape == (32, 32)
    last = latent_query(info, path)  # the file says its run
    np.testing.assert_array_equal(last.vectors, latent_query(info, path, frame=-1).vectors)
    with pytest.raises(UsageError, match="has frames 0 to 2"):
        latent_query(info, path, frame=3)
    with pytest.raises(UsageError, match="there is no such file"):
        latent_query(info, inside / "none.h5")
    for change, message in (
        ({"generator": "a" * 64}, "belongs to generator aaaaaaaaaaaa"),
        ({"w": w[:, :3]}, "holds w of shape"),
        ({"w": np.full_like(w[0], np.nan)}, "not finite"),
        ({"generator": None}, "is no latent file"),
    ):
        about = {"generator": generator.digest, "w": w[0], **change}
        with new_hdf5(path) as file:
            if about["generator"] is not None:
                file.attrs["generator"] = about["generator"]
            file.create_dataset("w", data=about["w"])
        with pytest.raises(DataError, match=message):
            latent_query(info, path, run="00009-tiny")
    with new_hdf5(path) as file:
        file.attrs["generator"] = generator.digest
        file.create_dataset("w", data=w[:1])  # a leading axis of 1 is allowed
    same = latent_query(info, path, run="00009-tiny")
    np.testing.assert_array_equal(same.vectors, by_seed.vectors)
    with pytest.raises(UsageError, match="give it with --run"):
        latent_query(info, path)
    with pytest.raises(UsageError, match="holds one latent and no walk"):
        latent_query(info, path, frame=1, run="00009-tiny")
    path.write_bytes(b"no HDF5")
    with pytest.raises(DataError, match="cannot be read as a latent file"):
        latent_query(info, path, run="00009-tiny")


def test_the_gallery_shows_the_stored_pixels(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sunpipe.index.datasets import Datasets
    from sunpipe.index.thumbnails import patch

    page = tmp_path / "g.html"
    app(["search", str(built / "index/tiny"), "--record", HARP_6060, "--html", str(page)],
        standalone_mode=False)  # fmt: skip
    shown = capsys.readouterr()
    assert LATER in shown.out
    text = page.read_text()
    assert "No pictures" not in text
    assert text.count("data:image/png") == 4  # three answers and the question
    index = load_index(built / "index/tiny")
    datasets = Datasets(index)
    found = patch(datasets, LATER)
    reader = datasets.reader(0)
    first = next(row for row in reader.records.to_pylist() if row["record"] == LATER)
    stored = reader.images([first["row"]])[0, 0]
    known = reader.masks([first["row"]])[0]
    left, top, _, height = found.box
    y = round((1 - top - height) * found.image.shape[0])
    x = round(left * found.image.shape[1])
    seen = found.image[y : y + 32, x : x + 32]
    np.testing.assert_array_equal(seen[known], stored[known])
    datasets.close()
