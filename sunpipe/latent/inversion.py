"""``sunpipe invert``: the latent that makes an observed patch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sunpipe.config import to_dict
from sunpipe.latent.inversion_files import write_inversion, written
from sunpipe.latent.inverter_train import folder_of, get_inverter, identity, why_not
from sunpipe.latent.sample import load_generator, stopper
from sunpipe.latent.target import Target, Wanted, find_target
from sunpipe.paths import Layout
from sunpipe.provenance import provenance
from sunpipe.settings import Config
from sunpipe.stage import Result, log
from sunpipe.stop import StopFlag

if TYPE_CHECKING:
    from sunpipe.latent.generator import Generator


def _folder(layout: Layout, cfg: Config, target: Target, out: Path | None) -> Path:
    return out or layout.latents(cfg.name) / f"inversion-{target.label}-{cfg.invert.space}"


def recipe_of(generator: Generator, cfg: Config, target: Target, samples: str) -> dict[str, Any]:
    """All that decides the result."""
    recipe = {
        "generator": generator.digest, "target": target.digest, "seed": cfg.seed,
        "noise": cfg.sample.noise, "psi": cfg.sample.psi, "samples": samples,
        "quantities": list(cfg.sample.quantities), "invert": to_dict(cfg.invert),
    }  # fmt: skip
    return dict(json.loads(json.dumps(recipe)))  # as it comes back from the file


def _samples(layout: Layout, cfg: Config) -> str:
    """Which samples there are to begin from: they decide the nearest one and the spreads."""
    from sunpipe.files import digest
    from sunpipe.latent.sample import samples_path
    from sunpipe.latent.samples import read_recipe

    path = samples_path(layout, cfg.name)
    return digest(read_recipe(path)) if path.exists() else ""


def invert(cfg: Config, wanted: Wanted, out: Path | None = None) -> Result:
    """Find the latent of a patch and write it, its errors and its picture.

    The inversion encoder is trained first where there is none for this generator; that is
    kept when the work is stopped, the rest is done again.
    """
    from sunpipe.latent.cloud import make_cloud
    from sunpipe.latent.invert_patch import invert_patch, pose
    from sunpipe.latent.misfit import quiet_noise

    layout = Layout.current()
    generator = load_generator(layout, cfg.name)
    quiet_noise(list(generator.channels))
    target = find_target(layout, cfg.dataset, generator, wanted)
    folder = _folder(layout, cfg, target, out)
    recipe = recipe_of(generator, cfg, target, _samples(layout, cfg))
    if (done := written(folder, recipe)) is not None:
        log(f"{folder} is up to date")
        return {**done, "skipped": True}
    with StopFlag() as stop:
        poll = stopper(stop, "invert")
        cloud = make_cloud(generator, layout, cfg, poll)
        network, cloud, about = get_inverter(layout.latents(cfg.name), generator, cloud, cfg, poll)
        problem = pose(generator, cloud, cfg.sample.noise, target.fields, target.mask, cfg.invert)
        found = invert_patch(problem, network, cfg.invert, cfg.seed, poll)
    result: Result = {
        **target.about(), "run": generator.run, "generator": generator.digest,
        "space": cfg.invert.space, "latent": str(folder / "inversion.h5"),
        "picture": str(folder / "picture.png"), "errors": found.errors,
        "mahalanobis": found.length, "keywords": found.keywords, "starts": found.starts,
        "spread_from": cloud.source, "encoder_held_out": about["held_out"],
        "recipe": recipe, "skipped": False,
    }  # fmt: skip
    write_inversion(folder, target, found, generator, cfg.invert.space,
                    {**result, "provenance": provenance()})  # fmt: skip
    return result


def plan(cfg: Config, wanted: Wanted, out: Path | None = None) -> Result:
    """Say what `invert` would do; the run, the patch and the tile are looked up."""
    layout = Layout.current()
    generator = load_generator(layout, cfg.name)
    target = find_target(layout, cfg.dataset, generator, wanted)
    folder = _folder(layout, cfg, target, out)
    recipe = recipe_of(generator, cfg, target, _samples(layout, cfg))
    why = why_not(
        folder_of(layout.latents(cfg.name)), json.loads(json.dumps(identity(generator, cfg)))
    )
    return {
        **target.about(), "run": generator.run, "out": str(folder),
        "up_to_date": written(folder, recipe) is not None,
        "inversion_encoder": "ready" if why is None else f"will be trained: {why}",
    }  # fmt: skip
