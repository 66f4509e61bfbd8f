"""``sunpipe evaluate retrieval``."""

from __future__ import annotations

from sunpipe.settings import Config
from sunpipe.stage import ConfigOption, DryRunOption, JsonOption, Result, SetOption, run_stage


def retrieval(
    config: ConfigOption = None,
    set_: SetOption = None,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Score the search: same region, same physics, invariance, copies.

    Real and generated patches ask the embedded archive; pixel distance, Mahalanobis
    distance on keywords and on their magnitudes, and chance stand beside the embedding.
    """

    def work(cfg: Config) -> Result:
        from sunpipe.evaluate.retrieval import evaluate
        from sunpipe.evaluate.retrieval_table import render

        found = evaluate(cfg)
        if json_:
            return found
        print(render(found), flush=True)
        return {key: found[key] for key in ("file", "picture", "copies_picture") if found[key]}

    def plan(cfg: Config) -> Result:
        from sunpipe.evaluate.retrieval import plan

        return plan(cfg)

    run_stage(
        "evaluate-retrieval", work, config=config, overrides=set_, dry_run=dry_run, as_json=json_,
        sections=("retrieval", "sample"), plan=plan, locked=True,
    )  # fmt: skip
