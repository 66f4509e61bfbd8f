"""``sunpipe physics``: the SHARP keywords of one magnetogram, beside its header."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sunpipe.stage import JsonOption, emit

Optional = Path | None


class Convention(StrEnum):
    """Rules of the published headers, or consistent units and a true potential field."""

    JSOC = "jsoc"
    PHYSICAL = "physical"


def physics(
    br: Annotated[Optional, typer.Option(help="Radial field (FITS).")] = None,
    bt: Annotated[Optional, typer.Option(help="Southward field (FITS).")] = None,
    bp: Annotated[Optional, typer.Option(help="Westward field (FITS).")] = None,
    bitmap: Annotated[Optional, typer.Option(help="Outline of the HARP.")] = None,
    conf_disambig: Annotated[Optional, typer.Option(help="Confidence of the azimuth.")] = None,
    los: Annotated[
        Optional, typer.Option(help="Line-of-sight magnetogram; may stand alone.")
    ] = None,
    br_err: Annotated[Optional, typer.Option(help="Error of Br; errors need all three.")] = None,
    bt_err: Annotated[Optional, typer.Option(help="Error of Bt.")] = None,
    bp_err: Annotated[Optional, typer.Option(help="Error of Bp.")] = None,
    convention: Annotated[
        Convention, typer.Option(help="jsoc: as in the headers; physical: consistent units.")
    ] = Convention.JSOC,
    json_: JsonOption = False,
) -> None:
    """SHARP keywords of one magnetogram, beside the values of its header.

    Give the vector field (--br --bt --bp) or a line-of-sight field alone (--los).
    """
    from sunpipe.physics.record import measure_files
    from sunpipe.physics.table import render

    result = measure_files(
        (br, bt, bp),
        bitmap=bitmap,
        conf_disambig=conf_disambig,
        los=los,
        errors=(br_err, bt_err, bp_err),
        convention=convention.value,
    )
    if json_:
        emit(result, as_json=True)
    else:
        print(render(result))
