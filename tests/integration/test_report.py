"""The page and the picture of a whole tiny experiment, on a really trained generator."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sunpipe.config import load_config
from sunpipe.embed.embed import embed
from sunpipe.embed.interrogate import interrogate
from sunpipe.errors import DataError
from sunpipe.fits import read_segment
from sunpipe.index.build import build
from sunpipe.latent.assemble import fit
from sunpipe.latent.sample import sample
from sunpipe.report.report import report
from sunpipe.settings import Config
from sunpipe.train.ssl import train_ssl
from tests.conftest import REPO, need, run_cli, run_json

TINY = REPO / "configs/tiny.toml"
SECTIONS = ("card", "training", "quality", "progress", "compare", "directions", "search",
            "scorecard", "cost", "timings", "reproduce")  # fmt: skip
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


def config(*overrides: str) -> Config:
    return load_config(TINY, overrides)


@pytest.fixture(scope="module")
def complete(tiny_run_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data root in which every stage but the report has run. Do not write to it."""
    root = tmp_path_factory.mktemp("complete") / "root"
    shutil.copytree(tiny_run_root, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUNPIPE_ROOT", str(root))
        sample(config())
        fit(config())
        train_ssl(config())
        embed(config())
        build(root / "embeddings/tiny", root / "index/tiny")
        interrogate(config())
        yield root


@pytest.fixture
def inside(complete: Path, root: Path) -> Path:
    """A writable copy of `complete`, as the data root."""
    shutil.copytree(complete, root, dirs_exist_ok=True)
    return root


@pytest.fixture(scope="module")
def made(complete: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A data root with its report, and what the command printed. Do not write to it."""
    root = tmp_path_factory.mktemp("made") / "root"
    shutil.copytree(complete, root)
    return root, run_json("report", "-c", TINY, root=root)


class Page(HTMLParser):
    """Ids, pictures, links and the text of a page; refuses unclosed elements."""

    VOID = ("meta", "img", "br", "link", "input", "hr", "base")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def ids(self) -> list[str]:
        return [str(attrs["id"]) for _, attrs in self.tags if "id" in attrs]


def test_command_reports_what_it_made(made: tuple[Path, dict[str, Any]]) -> None:
    root, result = made
    page = Path(result["report"])
    assert page == root / "reports/tiny/report.html"
    assert page.is_absolute()
    assert page.stat().st_size == result["bytes"] < 6e6
    assert result["sections"] == {
        **dict.fromkeys(SECTIONS, "current"), "quality": "missing", "scorecard": "missing",
    }  # fmt: skip
    assert len(result["facts"]) == 3
    physics, direction, found = result["facts"]
    assert re.search(r"HARP|sharp_cea_720s\[377\]", physics)
    assert "2.71476 × 10²² Mx" in physics
    assert re.match(r"A linear direction in w tells high \w+ from low in \d", direction)
    assert "correlates" in found or "first in" in found
    for fact in result["facts"]:
        assert fact.endswith(".")
        assert "nan" not in fact
        assert "None" not in fact
    assert Path(result["hero"]).stat().st_size < 400_000
    assert sorted(path.name for path in page.parent.iterdir()) == [
        "hero.png", "report.html", "report.json",
    ]  # fmt: skip


def test_page_is_one_file_with_all_sections(made: tuple[Path, dict[str, Any]]) -> None:
    root, result = made
    page = Page(Path(result["report"]))
    assert set(SECTIONS) <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids), "an id stands twice"
    for _, attrs in page.tags:
        for key in ("src", "href", "srcset", "action", "data", "xlink:href"):
            value = attrs.get(key)
            assert value is None or value.startswith(("#", "data:image/png;base64,")), value
    source = Path(result["report"]).read_text(encoding="utf-8")
    assert not page.all("script")
    assert not page.all("link")
    assert "@import" not in source
    assert not re.search(r"url\((?!#)", source)
    assert str(root) not in source, "no path of this machine"
    assert all(attrs.get("alt") for attrs in page.all("img"))
    for fact in result["facts"]:
        assert fact in page.text.replace("\u00a0", " ")
    assert "hmi.sharp_cea_720s[6060][2015.10.30_00:12:00_TAI]" in page.text
    for word in ("nan", "None", "Undefined", "inf"):
        assert not re.search(rf"\b{word}\b", page.text.replace("none selected", "")), word


def test_card_counts_every_candidate(made: tuple[Path, dict[str, Any]]) -> None:
    root, result = made
    info = json.loads((root / "shards/tiny/dataset.json").read_text())
    counts = info["counts"]
    text = Page(Path(result["report"])).text
    assert (f"{counts['records_in']:,} = {counts['rows']:,} kept"
            f" + {counts['quarantined']:,} quarantined") in text  # fmt: skip
    for harp in ("377", "6060", "7115"):
        assert f"HARP {harp}" in text
    assert "low_flux" in text


def test_again_is_skipped_until_something_changes(tiny_copy: Path) -> None:
    first = report(config(), TINY)
    page = Path(first["report"])
    before = page.stat().st_mtime_ns
    second = report(config(), TINY)
    assert second["skipped"]
    assert {**second, "skipped": False} == first
    assert page.stat().st_mtime_ns == before
    assert not report(config("report.title=other"), TINY)["skipped"]
    assert "<title>other</title>" in page.read_text()
    assert not report(config("report.title=other"), TINY, again=True)["skipped"]
    (page.parent / "hero.png").unlink()
    assert not report(config("report.title=other"), TINY)["skipped"]
    shutil.rmtree(tiny_copy / "shards")
    assert report(config("report.title=other"), TINY)["sections"]["card"] == "missing"


def test_hostile_strings_are_shown_not_run(inside: Path) -> None:
    folder = inside / "shards/tiny"
    for name, columns in (("records", ["noaa_ars", "t_rec"]), ("quarantine", ["reason", "detail"])):
        table = pq.read_table(folder / f"{name}.parquet")
        for column in columns:
            place = table.column_names.index(column)
            bad = pa.array([HOSTILE] * len(table))
            table = table.set_column(place, column, bad)
        pq.write_table(table, folder / f"{name}.parquet")
    row = {"stage": HOSTILE, "name": "tiny", "seconds": 1.0, "time": HOSTILE, "result": {}}
    with open(inside / "stages.jsonl", "a", encoding="utf-8") as handle:
        handle.write(json.dumps(row) + "\n")
    status = inside / "runs/00000-tiny/status.json"
    status.write_text(json.dumps({**json.loads(status.read_text()), "state": HOSTILE}))
    result = report(config(f"report.title={HOSTILE}"), Path(f"{HOSTILE}.toml"))
    page = Page(Path(result["report"]))
    assert page.text.count("<script>alert(1)</script>") >= 6
    assert not page.all("script")
    assert not [attrs for _, attrs in page.tags if any(key.startswith("on") for key in attrs)]
    assert not [attrs for attrs in page.all("img") if attrs.get("src") == "x"]


def test_missing_artefacts_are_hints(root: Path) -> None:
    result = report(config(), Path("configs/tiny.toml"))
    page = Page(Path(result["report"]))
    assert result["facts"] == []
    assert result["sections"] == {
        **dict.fromkeys(SECTIONS, "missing"), "reproduce": "current",
    }  # fmt: skip
    for stage in ("fetch", "shard", "train", "sample", "directions fit", "ssl", "search"):
        assert f"sunpipe {stage} -c configs/tiny.toml" in page.text
    assert Path(result["hero"]).stat().st_size > 1000


def test_data_alone_gives_a_page_and_two_facts(tiny_copy: Path) -> None:
    result = report(config(), TINY)
    assert result["sections"]["card"] == "current"
    assert result["sections"]["training"] == "missing"
    assert len(result["facts"]) == 2
    kept = r"Of [\d,]+ candidates [\d,]+ \(of \d+ HARPs\) were kept and [\d,]+ quarantined"
    assert re.match(kept, result["facts"][1])


def test_artefacts_of_another_generator_are_stale(inside: Path) -> None:
    run = inside / "runs/00000-tiny"
    shutil.copytree(run, inside / "runs/00007-tiny")
    folder = inside / "runs/00007-tiny/checkpoints"
    from safetensors.numpy import load_file, save_file

    from sunpipe.files import sha256

    newest = folder / (folder / "latest").read_text().strip()
    weights = load_file(newest / "G_ema.safetensors")
    name = next(key for key, value in weights.items() if value.dtype == np.float32)
    save_file({**weights, name: weights[name] + 1}, newest / "G_ema.safetensors")
    known = json.loads((newest / "COMPLETE").read_text())
    known["G_ema.safetensors"] = sha256(newest / "G_ema.safetensors")
    (newest / "COMPLETE").write_text(json.dumps(known))
    result = report(config(), TINY)
    assert result["sections"]["compare"] == "stale"
    assert result["sections"]["directions"] == "stale"
    assert result["sections"]["search"] == "stale"
    text = Page(Path(result["report"])).text
    assert "Stale, so it is not shown" in text
    assert f"sunpipe sample -c {TINY}" in text
    assert "A linear direction" not in text
    assert all("A linear direction" not in fact for fact in result["facts"])


def test_samples_changed_leave_directions_stale(inside: Path) -> None:
    sample(config("sample.count=64"))
    result = report(config(), TINY)
    assert result["sections"]["directions"] == "stale"
    assert result["sections"]["compare"] == "current"


def test_another_dataset_makes_everything_stale(inside: Path) -> None:
    path = inside / "shards/tiny/dataset.json"
    info = json.loads(path.read_text())
    info["files"]["records.parquet"] = "0" * 64
    path.write_text(json.dumps(info))
    result = report(config(), TINY)
    assert result["sections"] == {
        **dict.fromkeys(SECTIONS, "stale"), "card": "current", "scorecard": "missing",
        "timings": "current", "reproduce": "current",
    }  # fmt: skip


@pytest.mark.parametrize(
    "damage",
    [
        {
            "shards/tiny/quarantine.parquet": "card",
            "latents/tiny/traverse.h5": "directions", "stages.jsonl": "timings",
        },
        {"latents/tiny/samples.h5": "compare", "index/tiny/vectors.faiss": "search"},
        {"latents/tiny/directions.json": "directions", "searches/tiny/hits.parquet": "search"},
        {"shards/tiny/dataset.json": "card"},
        {"shards/tiny/records.parquet": "card"},
        {"shards/tiny/shard-00000.h5": "compare"},
        {"runs/00000-tiny/config.json": "training"},
    ],
    ids=lambda damage: "+".join(Path(path).name for path in damage),
)  # fmt: skip
def test_damaged_artefacts_cost_their_section_only(inside: Path, damage: dict[str, str]) -> None:
    for path in damage:
        damaged = inside / path
        damaged.write_bytes(b"not this\n" + damaged.read_bytes()[: damaged.stat().st_size // 2])
    result = report(config(), TINY)
    assert {result["sections"][section] for section in damage.values()} == {"broken"}
    assert result["sections"]["reproduce"] == "current"
    text = Page(Path(result["report"])).text
    assert "Not readable" in text
    assert str(inside) not in text


def test_dry_run_writes_nothing_and_bad_root_is_one_line(complete: Path, tmp_path: Path) -> None:
    plan = run_json("report", "-c", TINY, "--dry-run", root=complete)
    assert plan["dry_run"]
    assert not plan["up_to_date"]
    assert not (complete / "reports").exists()
    file = tmp_path / "file"
    file.write_text("")
    done = run_cli("report", "-c", TINY, root=file)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_an_interrupt_leaves_nothing_half_written(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sunpipe.report import report as stage

    def stopped(*args: Any, **more: Any) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage, "render", stopped)
        with pytest.raises(KeyboardInterrupt):
            report(config(), TINY)
    assert not (tiny_copy / "reports/tiny/report.html").exists()
    assert not report(config(), TINY)["skipped"]


def chromium(page: Path, tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open a page in a headless browser with no network."""
    command = [
        need("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--enable-logging=stderr", "--virtual-time-budget=4000",
        f"--user-data-dir={tmp_path / 'profile'}", *options, page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.browser
@pytest.mark.parametrize("width", [1200, 480])
def test_a_copied_page_opens_in_a_browser(
    made: tuple[Path, dict[str, Any]], tmp_path: Path, width: int
) -> None:
    source = Path(made[1]["report"]).read_text(encoding="utf-8")
    # A page cannot run scripts, so the check is added to the copy, with leave of its policy.
    probe = """<script>addEventListener("load", () => {
      const images = [...document.images], charts = [...document.querySelectorAll("svg")];
      document.body.dataset.probe = JSON.stringify({
        images: images.length, empty: images.filter(i => !i.naturalWidth).length,
        charts: charts.length, flat: charts.filter(c => c.getBoundingClientRect().height < 40
                                                   && c.checkVisibility()).length,
        wide: document.documentElement.scrollWidth - innerWidth});
    })</script>"""
    assert source.count("default-src 'none';") == 1
    source = source.replace(
        "default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';"
    )
    copy = tmp_path / "elsewhere" / "copied report.html"
    copy.parent.mkdir()
    copy.write_text(source.replace("</body>", probe + "</body>"), encoding="utf-8")
    done = chromium(copy, tmp_path, "--dump-dom", f"--window-size={width},900")
    match = re.search(r'data-probe="([^"]*)"', done.stdout)
    assert match, done.stderr
    found = json.loads(match[1].replace("&quot;", '"'))
    assert found["images"] > 60
    assert found["empty"] == 0
    assert found["charts"] > 12
    assert found["flat"] == 0
    assert found["wide"] <= 0, "the page scrolls sideways"
    assert "CONSOLE" not in done.stderr, done.stderr


@pytest.mark.browser
def test_the_page_itself_raises_no_complaint(
    made: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    shot = tmp_path / "page.png"
    done = chromium(Path(made[1]["report"]), tmp_path, f"--screenshot={shot}",
                    "--window-size=1100,900")  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    assert shot.stat().st_size > 10_000


def test_a_damaged_archive_costs_its_fact_only(tiny_copy: Path) -> None:
    path = next(tiny_copy.glob("archive/*/377/*/*.Br.fits"))
    path.write_bytes(path.read_bytes()[:5000])
    result = report(config(), TINY)
    assert result["sections"]["card"] == "current"
    assert all("377" not in fact for fact in result["facts"])
    with pytest.raises(DataError):
        read_segment(path)
