"""The gallery: pictures out of shards, and a page that needs nothing but itself."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sunpipe.index import gallery, thumbnails
from sunpipe.index.cli import app
from sunpipe.index.datasets import Datasets, source_of
from sunpipe.index.limits import Limits
from sunpipe.index.search import Query, ask, record_query
from sunpipe.index.store import Index
from tests.unit.answers_fake import DIM, make_index, name

SIDE = 16  # stored pixels of a tile; tiles of the fake index are 16 native pixels apart


class FakeReader:
    """Tiles of a field that is 100 G times the row of the patch plus the column."""

    def __init__(self, index: Index) -> None:
        from types import SimpleNamespace

        self.table = index.table
        self.info = SimpleNamespace(reduce=2, resolution=SIDE, channels=["Bp", "Br"])

    def images(self, rows: list[int]) -> np.ndarray:
        y, x = np.mgrid[:SIDE, :SIDE]
        first = self.table["tile_y"][rows[0]].as_py() // 2
        field = 100.0 * (y + first) + x
        return np.stack([np.zeros_like(field), field])[None].astype(np.float32)

    def masks(self, rows: list[int]) -> np.ndarray:
        mask = np.ones((1, SIDE, SIDE), bool)
        mask[:, :, -1] = False
        return mask

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    about = {"channels": ["Bp", "Br"], "units": ["Gauss", "Gauss"], "reduce": 2}
    return make_index(tmp_path_factory.mktemp("gallery"), about)


@pytest.fixture
def shards(index: Index, monkeypatch: pytest.MonkeyPatch) -> FakeReader:
    fake = FakeReader(index)
    monkeypatch.setattr("sunpipe.index.datasets.open_source", lambda index, number: fake)
    return fake


def test_tiles_lie_side_by_side_again(index: Index, shards: FakeReader) -> None:
    found = thumbnails.patch(Datasets(index), name(2), (16, 0))  # tiles at 0, 16 and 32
    assert found.image.shape == (32, 16)
    y, x = np.mgrid[:32, :15]
    np.testing.assert_array_equal(found.image[:, :15], 100 * y + x)
    assert np.isnan(found.image[:, 15]).all()
    assert found.box == (0.0, 0.25, 1.0, 0.5)  # from the top: rows 8 to 24 of 32


def test_blocks_are_means_of_what_is_known() -> None:
    image = np.arange(25, dtype=np.float32).reshape(5, 5)
    image[0, 0] = np.nan
    small = thumbnails.blocks(image, 3)
    assert small.shape == (3, 3)
    assert small[0, 0] == pytest.approx((1 + 5 + 6) / 3)
    assert small[2, 2] == 24
    assert np.isnan(thumbnails.blocks(np.full((4, 4), np.nan, np.float32), 2)).all()
    assert thumbnails.blocks(image, 5) is image


def pixels(uri: str) -> np.ndarray:
    """RGB of a data URI, the first row on top."""
    content = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_colours_are_gauss() -> None:
    image = np.array([[-1000.0, 0, 1000, 5000], [np.nan, 0, 0, 0]], np.float32)
    seen = pixels(thumbnails.data_uri(image, 1000, field=True))
    table = thumbnails.palette(field=True)
    assert seen[1].tolist() == [table[0].tolist(), table[127].tolist(), *[table[254].tolist()] * 2]
    assert tuple(seen[0, 0]) == thumbnails.NO_DATA  # north is up
    assert table[254][0] > table[254][2]  # positive is red
    bright = pixels(thumbnails.data_uri(np.array([[0.0, 25, 100]], np.float32), 100, field=False))
    table = thumbnails.palette(field=False)
    assert bright[0].tolist() == [table[0].tolist(), table[127].tolist(), table[254].tolist()]


def test_the_limit_is_round() -> None:
    assert thumbnails.colour_limit([np.linspace(-990, 990, 101)]) == 1000
    assert thumbnails.colour_limit([np.full((3, 3), np.nan)]) == 1
    assert thumbnails.colour_limit([]) == 1


def test_a_page_needs_nothing_but_itself(index: Index, shards: FakeReader, tmp_path: Path) -> None:
    query = record_query(index, name(0))
    answer = ask(index, query, Limits(), 9)
    assert gallery.write_gallery(tmp_path / "g.html", index, answer, "harp", query) == ""
    page = (tmp_path / "g.html").read_text()
    assert not re.search(r"""(?:src|href|url|action)\s*[=(]\s*["']?(?!data:)[a-z]+:""", page)
    assert "http" not in page.replace("http-equiv", "")
    assert "default-src 'none'" in page
    assert page.count('src="data:image/png') == len(answer.hits) + 1  # and the question
    for hit in answer.hits:
        assert f'data-copy="{hit["record"]}"' in page
    assert "X2.2 (of 12)" in page
    assert "X2.2 2011-02-15T01:56Z" in page
    assert "1 more record of the same HARP" in page
    assert "unknown" in page  # the whole disk of 2019


def test_text_of_the_data_is_escaped(index: Index, shards: FakeReader) -> None:
    evil = "<script>alert(1)</script>'\">"
    answer = ask(index, None, Limits(where=f'record != "{evil.replace(chr(34), "")}"'), 2)
    page = gallery.page(index, answer, "harp", gallery.pictures(index, answer, None))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_without_shards_it_says_so(index: Index, tmp_path: Path) -> None:
    answer = ask(index, None, Limits(where="year = 2011"), 2)
    why = gallery.write_gallery(tmp_path / "g.html", index, answer, "harp")
    assert why.startswith("the shards of fake are not under")
    page = (tmp_path / "g.html").read_text()
    assert "No pictures: the shards of fake" in page
    assert "no picture\n" in page
    assert name(0) in page


def test_a_generated_question_is_shown_and_an_empty_answer_explained(index: Index) -> None:
    made = Query(np.ones((1, DIM), np.float32), {"kind": "seed", "seed": 3, "run": "00000-x"},
                 None, None, np.full((SIDE, SIDE), 500.0, np.float32))  # fmt: skip
    answer = ask(index, made, Limits(where="USFLUX > 1e30 and year = 2011"))
    page = gallery.page(index, answer, "harp", gallery.pictures(index, answer, made))
    assert "No observation of fake" in page
    assert "<p>no observation in the index satisfies this:</p>" in page
    assert "seed 3 of generator 00000-x" in page
    assert 'alt="the question"' in page
    assert re.search(r"USFLUX &gt; 1e30</th><td>alone leaves 0 records", page)
    assert re.search(r"year = 2011</th><td>alone leaves 2 records, 12 tiles", page)


def test_the_command_writes_a_page_and_never_half_of_it(
    index: Index, shards: FakeReader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "deep" / "g.html"
    page.parent.mkdir()
    app(["search", str(index.folder), "--where", "year = 2011", "--html", str(page), "--json"],
        standalone_mode=False)  # fmt: skip
    shown = capsys.readouterr()
    assert len(json.loads(shown.out)["hits"]) == 1
    assert shown.err == f"written: {page}\n"
    assert [path.name for path in page.parent.iterdir()] == ["g.html"]


def test_sources_of_rows(index: Index) -> None:
    import dataclasses

    sources = [{"first": 0, "rows": 10}, {"first": 10, "rows": 14}]
    two = dataclasses.replace(index, info=dataclasses.replace(index.info, sources=sources))
    assert source_of(two, np.array([0, 9, 10, 23])).tolist() == [0, 0, 1, 1]
