"""What an experiment has left behind, and whether each piece still belongs to the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from sunpipe.errors import DataError, SunpipeError
from sunpipe.files import digest, sha256
from sunpipe.paths import Layout
from sunpipe.report.runfolder import RunFolder, read_run
from sunpipe.report.typed import command
from sunpipe.run import ssl_name, trained_run
from sunpipe.settings import Config
from sunpipe.shards.reader import ShardReader
from sunpipe.shards.schema import dataset_id

if TYPE_CHECKING:
    from sunpipe.embed.searches import Search
    from sunpipe.index.store import Index
    from sunpipe.latent.directions import Directions
    from sunpipe.latent.generator import Generator
    from sunpipe.latent.samples import Samples

T = TypeVar("T")
State = Literal["current", "missing", "stale", "broken"]


@dataclass(frozen=True)
class Found(Generic[T]):
    """One artefact, or why it cannot be shown.

    Attributes
    ----------
    value : object or None
        Only when `state` is ``current``.
    state : {"current", "missing", "stale", "broken"}
        ``stale``: whole, but made from something that has changed since.
    why : str
        What is wrong; empty when current.
    stages : tuple of str
        The stages to run, in order, to have it current.
    """

    value: T | None
    state: State
    why: str = ""
    stages: tuple[str, ...] = ()

    def blocked(self, what: str, *then: str) -> Found[Any]:
        """The same fault, for something that stages `then` make from this."""
        why = self.why if self.state == "missing" else f"{what}: {self.why}"
        return Found(None, self.state, why, (*self.stages, *then))


def find(
    marker: Path, stages: tuple[str, ...], read: Callable[[], T],
    stale: Callable[[T], str | None] = lambda value: None,
) -> Found[T]:  # fmt: skip
    """Read what `marker` stands for.

    Parameters
    ----------
    marker : Path
        The file whose presence means that the artefact is complete.
    stages : tuple of str
        What makes it.
    read : callable
        May raise `SunpipeError`, `OSError`, or what a parser of a damaged file raises.
    stale : callable
        Says why what was read is out of date, or None.
    """
    if not marker.exists():
        return Found(None, "missing", "not made yet", stages)
    try:
        value = read()
    except (SunpipeError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        return Found(None, "broken", f"cannot be read: {error}", stages)
    why = stale(value)
    return Found(None, "stale", why, stages) if why else Found(value, "current")


class Sources:
    """Artefacts of one experiment, each read when it is asked for.

    Parameters
    ----------
    cfg : Config
    layout : Layout
    config : Path, optional
        The configuration file, for the commands that the page names.
    gan, ssl : RunFolder, optional
        The run that the page is about; else the newest one of that name.
    sets : sequence of str
        What ``--set`` changed of the configuration.
    """

    def __init__(
        self, cfg: Config, layout: Layout, config: Path | None = None,
        gan: RunFolder | None = None, ssl: RunFolder | None = None, sets: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.cfg = cfg
        self.layout = layout
        self.config = config
        self.gan = gan
        self.ssl = ssl
        self.sets = sets

    @property
    def about(self) -> RunFolder | None:
        """The run that this is about, whatever it trained; None when there is none."""
        return self.gan or self.ssl or self.run.value

    def command(self, stage: str) -> str:
        """What to type to run a stage of this experiment."""
        return command(stage, self.config, self.sets)

    @cached_property
    def dataset(self) -> Found[ShardReader]:
        """The shards."""
        folder = self.layout.shards(self.cfg.dataset)
        return find(folder / "dataset.json", ("fetch", "shard"), lambda: ShardReader(folder),
                    self._not_of_the_run)  # fmt: skip

    def _not_of_the_run(self, reader: ShardReader) -> str | None:
        """Why a dataset is not the one of the run that was asked for."""
        if self.gan is not None:
            used = self.gan.config["data"]["dataset_id"]
        elif self.ssl is not None:
            used = self.ssl.config["data"]["id"]
        else:
            return None
        if used == dataset_id(reader.info):
            return None
        return (f"the run was trained on another version of the dataset ({used[:12]}; it is now"
                f" {dataset_id(reader.info)[:12]})")  # fmt: skip

    def _other_dataset(self, used: str) -> str | None:
        reader = self.dataset.value
        if reader is None or used == dataset_id(reader.info):
            return None
        return (f"made from another version of the dataset ({used[:12]}; it is now"
                f" {dataset_id(reader.info)[:12]})")  # fmt: skip

    @cached_property
    def run(self) -> Found[RunFolder]:
        """The StyleGAN2 run."""
        if self.gan is not None:
            return Found(self.gan, "current")
        folder = trained_run(self.layout, self.cfg.name)
        if folder is None:
            return Found(None, "missing", "not made yet", (*self.dataset.stages, "train"))
        return find(
            folder / "config.json", ("train --new",), lambda: read_run(folder),
            lambda run: self._other_dataset(run.config["data"]["dataset_id"]),
        )  # fmt: skip

    @cached_property
    def ssl_run(self) -> Found[RunFolder]:
        """The encoder's run."""
        if self.ssl is not None:
            return Found(self.ssl, "current")
        folder = trained_run(self.layout, ssl_name(self.cfg.name))
        if folder is None:
            return Found(None, "missing", "not made yet", (*self.dataset.stages, "ssl"))
        return find(folder / "config.json", ("ssl --new",), lambda: read_run(folder))

    @cached_property
    def generator(self) -> Found[Generator]:
        """G_ema of the newest whole checkpoint."""
        run = self.run.value
        if run is None:
            return self.run.blocked("the run of the generator")
        folder = run.folder

        def load() -> Generator:
            from sunpipe.latent.generator import Generator

            return Generator.load(folder, "cpu")

        return find(folder / "checkpoints" / "latest", ("train",), load)

    def _other_generator(self, used: str) -> str | None:
        generator = self.generator.value
        if generator is None or used == generator.digest:
            return None
        return (f"made with generator {used[:12]}, the newest checkpoint of {generator.run} is"
                f" {generator.digest[:12]}")  # fmt: skip

    @cached_property
    def samples(self) -> Found[Samples]:
        """Latents and measured quantities of generated patches."""
        from sunpipe.latent.samples import read_samples

        if self.generator.value is None:
            return self.generator.blocked("the generator", "sample")
        path = self.layout.latents(self.cfg.name) / "samples.h5"
        return find(path, ("sample",), lambda: read_samples(path),
                    lambda found: self._other_generator(found.recipe["generator"]))  # fmt: skip

    @cached_property
    def directions(self) -> Found[Directions]:
        """Directions with their scores and walks."""
        from sunpipe.latent.directions import read_directions

        if self.samples.value is None:
            return self.samples.blocked("the samples", "directions fit")
        folder = self.layout.latents(self.cfg.name)
        drawn = digest(self.samples.value.recipe)

        def stale(found: Directions) -> str | None:
            if found.about["recipe"]["samples"] != drawn:
                return "fitted to other samples than those that are there now"
            return self._other_generator(found.about["generator"])

        return find(folder / "directions.json", ("directions fit",),
                    lambda: read_directions(folder), stale)  # fmt: skip

    @cached_property
    def encoder(self) -> Found[str]:
        """Digest of the newest encoder, as ``[embed] orbit`` has it used."""
        run = self.ssl_run.value
        if run is None:
            return self.ssl_run.blocked("the run of the encoder")
        folder = run.folder

        def load() -> str:
            from sunpipe.embed.encoder import FieldEncoder

            return FieldEncoder.load(folder, self.cfg.embed.orbit).card.digest

        return find(folder / "checkpoints" / "latest", ("ssl",), load)

    @cached_property
    def index(self) -> Found[Index]:
        """The index of the real archive."""
        from sunpipe.index.store import load_index

        folder = self.layout.index(self.cfg.name)
        made = self.layout.embeddings(self.cfg.name) / "embedding.json"

        def stale(found: Index) -> str | None:
            if why := self._other_dataset(found.info.dataset["id"]):
                return why
            encoder = self.encoder.value
            if encoder is not None and found.info.encoder["digest"] != encoder:
                return (f"made with encoder {found.info.encoder['digest'][:12]}, the newest is"
                        f" {encoder[:12]}")  # fmt: skip
            if made.exists() and sha256(made) != found.info.embedding:
                return "built from an older embedding than the one that is there now"
            return None

        return find(folder / "index.json", self._towards_index(),
                    lambda: load_index(folder), stale)  # fmt: skip

    def _towards_index(self) -> tuple[str, ...]:
        """Stages that lead to a current index, without an encoder that is there already."""
        return ("embed", "index build") if self.encoder.value else ("ssl", "embed", "index build")

    @cached_property
    def search(self) -> Found[Search]:
        """Generated queries and the observations that answered."""
        from sunpipe.embed.searches import read_search, whole

        folder = self.layout.searches(self.cfg.name)

        def read() -> Search:
            found = read_search(folder)
            if not whole(folder, found):
                raise DataError(f"a file of {folder.name} was altered or cut short")
            return found

        def stale(found: Search) -> str | None:
            made = found.made_from
            index = self.layout.index(self.cfg.name) / "index.json"
            if why := self._other_generator(made["generator"]):
                return why
            if self.index.value is None or made["index"] != sha256(index):
                return "asked of another index than the one that is there now"
            return None

        before = () if self.index.value is not None else self._towards_index()
        if self.generator.value is None:
            return self.generator.blocked("the generator", *before, "search")
        if self.index.value is None and (folder / "search.json").exists():
            return self.index.blocked("the index", "search")
        return find(folder / "search.json", (*before, "search"), read, stale)
