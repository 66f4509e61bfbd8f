"""Parts of the report on plain values: numbers, pictures, charts, distances, facts, staleness."""

from __future__ import annotations

import dataclasses
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sunpipe.embed.searches import Search
from sunpipe.errors import DataError
from sunpipe.latent.leakage import worst_leak
from sunpipe.report import charts, facts, numbers, pictures
from sunpipe.report.compare import affordable, shown_range
from sunpipe.report.distances import kolmogorov_smirnov, radial_power, wasserstein
from sunpipe.report.hero import shown_steps
from sunpipe.report.retrieval import shown_queries
from sunpipe.report.section import section
from sunpipe.report.sources import Found, Sources, find
from sunpipe.report.timings import last_work, read_stages
from sunpipe.report.walked import per_step, shade

HOSTILE = '<script>alert("x")</script>&$^{2}$'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.71476e22, "2.71 × 10²²"), (-3.2e-7, "−3.20 × 10⁻⁷"), (0.0, "0"), (45.678, "45.7"),
        (9.996, "10.0"), (99999.0, "1.00 × 10⁵"), (12345.0, "12300"), (0.00123, "0.00123"),
        (None, "–"), (float("nan"), "–"), (float("inf"), "–"),
    ],
)  # fmt: skip
def test_numbers_read_like_a_paper(value: float | None, text: str) -> None:
    assert numbers.number(value).replace(numbers.SPACE, " ") == text


def test_units_signs_and_durations() -> None:
    plain = {numbers.SPACE: " "}

    def shown(text: str) -> str:
        return text.translate(str.maketrans(plain))

    assert shown(numbers.with_unit(3330.155, "G^2/m", 4)) == "3330 G²/m"
    assert numbers.with_unit(None, "Mx") == "–"
    assert shown(numbers.signed(1.5e20, "Mx")) == "+1.50 × 10²⁰ Mx"
    assert shown(numbers.percent(0.885)) == "88.5 %"
    assert numbers.fixed(-0.001) == "0.00"
    assert numbers.fixed(-0.5) == "−0.50"
    assert [shown(numbers.duration(x)) for x in (4.37, 125, 7384)] == [
        "4.4 s", "2 min 05 s", "2 h 03 min",
    ]  # fmt: skip
    assert numbers.axis_scale([1e21, 3e22, float("nan")], "Mx") == (1e22, "10²² Mx")
    assert numbers.axis_scale([12.0], "deg") == (1.0, "deg")
    assert numbers.axis_scale([], "deg") == (1.0, "deg")


def _unpack(content: bytes) -> tuple[int, int, np.ndarray, np.ndarray]:
    """Width, height, palette and indices of a palette PNG, decoded by hand."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(content):
        size, kind = struct.unpack(">I4s", content[at : at + 8])
        body = content[at + 8 : at + 8 + size]
        assert struct.unpack(">I", content[at + 8 + size : at + 12 + size])[0] == zlib.crc32(
            kind + body
        )
        chunks[kind], at = body, at + 12 + size
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not lines[:, 0].any()
    return width, height, np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3), lines[:, 1:]


def test_tile_has_north_up_and_one_colour_per_field() -> None:
    field = np.array([[-500.0, 0.0, 500.0], [np.nan, 9e9, -np.inf]])
    width, height, palette, shown = _unpack(pictures.png(field, 500.0))
    assert (width, height) == (3, 2)
    assert shown.tolist() == [[255, 254, 255], [0, 127, 254]]  # row 0 of the field is the lowest
    blue, white, red = (palette[place].astype(int) for place in (0, 127, 254))
    assert blue[2] > blue[0]
    assert red[0] > red[2]
    assert white.min() > 240
    assert tuple(palette[255]) == pictures.NO_DATA


def test_large_fields_are_averaged_over_blocks() -> None:
    field = np.arange(1602.0 * 1602).reshape(1602, 1602)
    width, height, *_ = _unpack(pictures.png(field, 1.0))
    assert (width, height) == (123, 123)  # by 13, less a ragged edge
    assert pictures.reduce(np.array([[1.0, 3.0], [5.0, 7.0]]), 2).tolist() == [[4.0]]


@pytest.mark.parametrize(
    ("values", "limit"), [([1300.0], 1500.0), ([0.0, np.nan], 1.0), ([], 1.0), ([-870.0], 1000.0)]
)
def test_colour_limit_is_round(values: list[float], limit: float) -> None:
    assert pictures.colour_limit([np.array(values)]) == limit


def test_charts_follow_the_page_and_escape_what_they_are_told() -> None:
    svg = charts.curves("k", [1.0, 2.0], {HOSTILE: (charts.BLUE, [1.0, 3.0])}, HOSTILE, "y")
    assert "<script" not in svg
    assert "&lt;script&gt;" in svg
    assert "currentColor" in svg
    assert "var(--blue)" in svg
    assert "http" not in svg.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert 'id="k-' in svg
    other = charts.curves("other", [1.0, 2.0], {"a": (charts.BLUE, [1.0, 3.0])}, "x", "y")
    assert 'id="k-' not in other


def test_histogram_takes_an_empty_side() -> None:
    nothing = np.zeros(0)
    svg = charts.histograms("h", {"real": (charts.GREY, nothing)}, 0.0, 1.0, "USFLUX")
    assert svg.startswith("<svg")
    assert shown_range(nothing, nothing) is None
    assert shown_range(np.ones(5), nothing) == (0.5, 1.5)
    low, high = shown_range(np.linspace(0, 1, 500), np.array([0.5, 1e9])) or (0.0, 0.0)
    assert -0.1 <= low < high <= 2.1, "absurd patches do not squeeze the rest into one bin"


def test_large_images_cost_no_more_than_small_ones() -> None:
    assert affordable(1000, 64) == 1000
    assert affordable(1000, 256) == 64
    assert affordable(1000, 4096) == 24


def test_bands_show_medians_where_a_band_explodes() -> None:
    curve = {"steps": [-1, 0, 1], "p16": [0, 0, 0], "median": [1, 2, 3], "p84": [2, 3, 1e9]}
    low, high = charts.visible([curve], 1.0)
    assert low <= 0
    assert 3 < high < 100
    empty = {"steps": [0, 1], "p16": [None] * 2, "median": [None] * 2, "p84": [None] * 2}
    assert charts.visible([empty], 1.0) == (0.0, 1.0)


def test_distances_against_scipy() -> None:
    from scipy.stats import ks_2samp, wasserstein_distance

    random = np.random.default_rng(0)
    a, b = random.normal(size=200), random.normal(0.4, 1.3, size=90)
    assert kolmogorov_smirnov(a, b) == pytest.approx(ks_2samp(a, b).statistic)
    assert wasserstein(a, b) == pytest.approx(wasserstein_distance(a, b))
    dirty = np.append(a, [np.nan, np.inf])
    assert kolmogorov_smirnov(dirty, b) == kolmogorov_smirnov(a, b)
    assert kolmogorov_smirnov(a, np.array([np.nan])) is None
    assert wasserstein(np.zeros(0), b) is None
    assert kolmogorov_smirnov(a, a) == wasserstein(a, a) == 0


def test_power_of_a_wave_stands_at_its_wavelength() -> None:
    x = np.arange(64)
    wave = np.broadcast_to(100 * np.cos(2 * np.pi * 8 * x / 64), (64, 64))
    power = radial_power(np.stack([wave, np.zeros((64, 64))]))
    assert power.shape == (2, 31)
    assert np.argmax(power[0]) + 1 == 8
    assert not power[1].any()


def check(difference: float, value: float = 2.5e22) -> dict[str, Any]:
    header = value / (1 + difference)
    return {"record": "hmi.x[1][t]", "value": value, "header": header, "pixels": 45703,
            "difference": value / header - 1}  # fmt: skip


def test_physics_fact_says_what_was_measured() -> None:
    fact = facts.physics_fact(check(3e-7))
    assert fact is not None
    assert "3 × 10⁻⁷" in fact.text.replace(numbers.SPACE, " ")
    assert "45,703 pixels" in fact.text
    worse = facts.physics_fact(check(0.02, 1.1e21))
    assert worse is not None
    assert "differ by 2.0 %" in worse.text.replace(numbers.SPACE, " ")
    assert "agree" not in worse.text
    assert "1.1" in worse.headline
    same = facts.physics_fact(check(0.0))
    assert same is not None
    assert same.text.endswith("they agree exactly.")
    assert facts.physics_fact(None) is None


@pytest.mark.parametrize("header", [float("nan"), float("inf"), 0.0, None, "MISSING"])
def test_a_header_without_the_number_is_not_compared(
    header: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "series/1/t"
    folder.mkdir(parents=True)
    for stem, segments in (("a", 5), ("b", 5)):
        for name in ("Br", "Bt", "Bp", "bitmap", "conf_disambig")[:segments]:
            (folder / f"{stem}.{name}.fits").touch()

    def measured(vector: tuple[Path, ...], **maps: Path) -> dict[str, Any]:
        stated = header if vector[0].name.startswith("a.") else 2e21
        return {"record": vector[0].name, "keywords": {"USFLUX": 2e21}, "cmask": 9,
                "header": {"USFLUX": stated}}  # fmt: skip

    monkeypatch.setattr("sunpipe.physics.record.measure_files", measured)
    found = facts.header_check(tmp_path)
    assert found is not None
    assert found["record"] == "b.Br.fits"
    (folder / "b.Br.fits").unlink()
    assert facts.header_check(tmp_path) is None


def test_speed_is_of_images_not_of_ticks() -> None:
    ticks = [{"nimg": 9000, "sec_per_kimg": 1.0}, {"nimg": 10000, "sec_per_kimg": 11.0}]
    assert facts.mean_speed(ticks) == pytest.approx(10_000 / (9 + 11))
    assert facts.mean_speed([{"nimg": 0, "sec_per_kimg": 1.0}]) is None
    gaps = [
        {"nimg": 1000, "sec_per_kimg": 2.0},
        {"nimg": 9000, "sec_per_kimg": None},
        {"nimg": 9500},
    ]
    assert facts.mean_speed(gaps) == pytest.approx(500), "of the tick that tells it"
    assert facts.mean_speed([{"nimg": 100, "sec_per_kimg": float("nan")}]) is None


def score(**more: Any) -> dict[str, Any]:
    leak = {"quantity": "TOTUSJH", "slope": 0.93}
    after = {"quantity": "AREA_MM2", "slope": -0.41}
    row = {"name": "USFLUX", "unit": "Mx", "extremes": 0.963, "random_extremes": 0.52,
           "share": 0.25, "extremes_count": 300, "steps": {"plain": 1.2e21, "conditional": 8e20},
           "plain_leak": leak, "conditional_leak": after}  # fmt: skip
    return {**row, **more}


def test_direction_fact_follows_the_numbers() -> None:
    fact = facts.direction_fact([score()])
    assert fact is not None
    text = fact.text.replace(numbers.SPACE, " ")
    for part in (
        "96.3 %",
        "top and bottom 25 %",
        "52.0 %",
        "+1.20 × 10²¹ Mx",
        "TOTUSJH, 0.93",
        "AREA_MM2, −0.41",
    ):
        assert part in text
    plain = facts.direction_fact([score(conditional_leak=None, steps={"plain": -4.0}, unit="deg")])
    assert plain is not None
    assert "−4.00" in plain.text
    assert "conditioning" not in plain.text
    alone = facts.direction_fact([score(plain_leak=None, conditional_leak=None)])
    assert alone is not None
    assert "side effect" not in alone.text
    assert "one standard deviation of w" in alone.text
    bare = facts.direction_fact([score(steps={"plain": None}, random_extremes=None)])
    assert bare is not None
    assert "top and bottom 25 %; its largest side" in bare.text.replace(numbers.SPACE, " ")
    least = facts.direction_fact([score(steps={}, plain_leak=None)])
    assert least is not None
    assert least.text.endswith("(random directions: 52.0 %).".replace(" %", numbers.SPACE + "%"))
    assert facts.direction_fact([]) is None
    assert facts.direction_fact([score(extremes=None)]) is None


def search(spearman: float | None, p95: float = 0.2) -> Search:
    found = {"unit": "Mx", "n": 96, "pearson": 0.8, "pearson_shuffled_p95": p95,
             "spearman": spearman, "spearman_shuffled_p95": p95}  # fmt: skip
    return Search({}, 100, 100, ["Br"], 1e8, {"USFLUX": found}, {}, {})


def test_search_fact_admits_chance() -> None:
    good, bad = facts.flux_fact(search(0.87)), facts.flux_fact(search(0.1))
    assert good is not None
    assert bad is not None
    assert "0.87" in good.text
    assert "chance" not in good.text
    assert "no better than chance" in bad.text
    assert facts.flux_fact(search(None)) is None
    assert facts.flux_fact(dataclasses.replace(search(0.9), quantities={})) is None


def test_held_out_fact_counts() -> None:
    row = {"record": "a[1][t]", "answer": "a[1][u]", "distance": 0.0141, "found": True,
           "harpnum": 1, "candidates": 3}  # fmt: skip
    fact = facts.held_out_fact([row, {**row, "found": False}])
    assert fact is not None
    assert fact.headline == "1 of 2"
    assert "0.014" in fact.text
    assert facts.held_out_fact([]) is None


def test_queries_are_shown_from_near_to_far() -> None:
    near = [0.5, 0.1, 0.9, 0.3, 0.7]
    hits = [{"query": query, "rank": rank, "distance": distance / rank}
            for query, distance in enumerate(near) for rank in (1, 2)]  # fmt: skip
    assert shown_queries(hits, 3) == [1, 0, 2]
    assert shown_queries(hits, 9) == [1, 3, 0, 4, 2]
    assert shown_queries([], 3) == []


def test_change_per_step_is_of_the_median_near_zero() -> None:
    curve = {"steps": [-3, -1, 0, 1, 3], "median": [0.0, 10.0, 11.0, 14.0, 1e9]}
    assert per_step(curve) == 2.0
    assert per_step({"steps": [-1, 1], "median": [None, 1.0]}) is None
    assert per_step({"steps": [5, 9], "median": [1.0, 2.0]}) is None


def test_steps_of_the_picture_stay_near_the_samples() -> None:
    assert shown_steps(np.arange(-3.0, 4)).tolist() == [1, 2, 3, 4, 5]
    assert shown_steps(np.array([-9.0, 0, 9])).tolist() == [0, 1, 2]
    assert shown_steps(np.linspace(-2, 2, 9)).tolist() == [0, 2, 4, 6, 8]


def test_leaks_are_ranked_by_size_and_shaded_by_sign() -> None:
    def row(quantity: str, slope: float | None) -> dict[str, Any]:
        return {"target": "A", "quantity": quantity, "conditional": False, "slope": slope,
                "low": None, "high": None}  # fmt: skip

    rows = [row("A", 1.0), row("B", 0.3), row("C", -0.8), row("D", None), row("E", 9.0)]
    worst = worst_leak(rows, "A", False, ["A", "B", "C", "D"])
    assert worst is not None
    assert worst["quantity"] == "C"
    assert set(worst) == {"quantity", "slope", "low", "high"}
    assert (worst_leak(rows, "A", False) or {})["quantity"] == "E"
    assert worst_leak(rows, "A", True, ["B"]) is None
    assert "--cool" in shade(-0.8)
    assert "100%" in shade(40.0)


def test_find_tells_missing_stale_broken_and_current(tmp_path: Path) -> None:
    marker = tmp_path / "x.json"
    assert find(marker, ("make",), lambda: 1).state == "missing"
    marker.write_text("{}")
    assert find(marker, ("make",), lambda: 1) == Found(1, "current")
    stale = find(marker, ("make",), lambda: 1, lambda _: "of another generator")
    assert (stale.value, stale.state, stale.why) == (None, "stale", "of another generator")

    def bad() -> int:
        raise DataError("it is damaged")

    broken = find(marker, ("make",), bad)
    assert (broken.value, broken.state) == (None, "broken")
    assert "it is damaged" in broken.why


def test_section_names_the_commands_that_help(root: Path) -> None:
    from sunpipe.config import load_config
    from sunpipe.paths import Layout

    sources = Sources(load_config(None, ("name=x",)), Layout.current(), Path("my exp.toml"))
    shown = section("card", "Data card", sources, (sources.dataset,), dict)
    assert shown.state == "missing"
    assert shown.commands == ("sunpipe fetch -c 'my exp.toml'", "sunpipe shard -c 'my exp.toml'")

    def damaged() -> dict[str, Any]:
        raise DataError("shard-00000.h5 is damaged")

    broken = section("card", "Data card", sources, (Found(1, "current"),), damaged)
    assert (broken.state, broken.why) == ("broken", "shard-00000.h5 is damaged")


def test_timings_are_of_the_last_run_that_worked(tmp_path: Path) -> None:
    def row(stage: str, seconds: float, **result: Any) -> str:
        return json.dumps({"stage": stage, "name": "a", "seconds": seconds, "result": result})

    lines = [row("train", 9.0), row("fetch", 1.0), row("train", 5.0)]
    lines += [row("train", 0.1, skipped=True), row("shard", 0.2, up_to_date=True)]
    lines += [row("fetch", 2.0).replace('"a"', '"b"')]
    path = tmp_path / "stages.jsonl"
    path.write_text("\n".join([*lines, '{"stage": "tor']) + "\n")
    found = [(row["stage"], row["seconds"]) for row in last_work(read_stages(tmp_path), "a")]
    assert found == [("fetch", 1.0), ("train", 5.0)]
    path.write_text("nonsense\n" + lines[0] + "\n")
    with pytest.raises(DataError, match=r"stages\.jsonl:1"):
        read_stages(tmp_path)
