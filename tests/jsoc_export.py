"""Exports of the local JSOC: requests, their states, and the files they deliver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from preprocess.archive import relative_path
from tests.jsoc_answers import Refused, select, split_sets

if TYPE_CHECKING:
    from tests.jsoc_server import JsocServer

EMAIL = "someone@example.org"
Answer = dict[str, Any]
UNKNOWN = "Cant locate export request: "  # codespell:ignore cant


def _queued(identity: str, status: int) -> Answer:
    if status == 6:
        return {
            "status": 6,
            "error": UNKNOWN + identity,
        }
    return {"status": status, "requestid": identity, "method": "url", "protocol": "as-is",
            "wait": 10, "rcount": 1, "size": 3}  # fmt: skip


def request_export(server: JsocServer, query: dict[str, list[str]]) -> Answer:
    """Answer to exp_request."""
    if server.export_answers:
        return server.export_answers.pop(0)
    process = query.get("process", query.get("process=n", [""]))[0]
    if query.get("notify") != [EMAIL]:
        return {"status": 4, "error": "The e-mail address is not registered."}
    if not process.removeprefix("n=").startswith("0"):
        return {"status": 4, "error": "bad process"}
    pending = [name for name, export in server.exports.items() if export["states"]]
    for name in pending:  # it goes on while nobody asks for it
        server.exports[name]["states"].pop(0)
    if pending:
        return {"status": 7, "error": f"User has {len(pending)} pending export requests: {pending};"
                                      " please wait until one completes"}  # fmt: skip
    text = query["ds"][0]
    same = (name for name, export in server.exports.items()
            if export["text"] == text and not export.get("deleted"))  # fmt: skip
    if identity := next(same, ""):  # for a day
        return _queued(identity, 2)
    folder = f"/SUM75/D{1999000111 + len(server.exports)}/S00000"
    try:
        rows = _rows(server, text, folder)
    except Refused:
        return {"status": 4, "error": "The record-set query is malformed."}
    if not rows:
        return {"status": 4, "error": "There are no files in this RecordSet"}
    identity = f"JSOC_20260101_{len(server.exports) + 1:06d}"
    states = [*server.export_states]
    server.exports[identity] = {"states": states, "rows": rows, "dir": folder, "text": text}
    return _queued(identity, states.pop(0)) if states[0] else _advance(server, identity)


def _has_image(server: JsocServer, record: str) -> bool:
    """JSOC adds ``[? drms.image_exists(quality) ?]`` to what is exported."""
    text = server.overrides.get((record, "QUALITY"))
    return not (text and int(text, 16) >> 31) and server.archive.keywords[record]["QUALITY"] >= 0


def _rows(server: JsocServer, text: str, folder: str) -> list[dict[str, str]]:
    rows = []
    for record_set, segments in split_sets(text):
        for record in select(server.archive, record_set):
            number = 40000001 + list(server.archive.keywords).index(record)
            for segment in segments or [] if _has_image(server, record) else []:
                name = relative_path(record, segment).rpartition("/")[2]
                if server.recnum_names:
                    name = f"{record.partition('[')[0]}.{number}.{segment}.fits"
                row = {"record": f"{record}{{{segment}}}", "filename": name}
                if server.no_data.get((record, segment), 0):
                    server.no_data[record, segment] -= 1
                    rows.append({**row, "filename": "NoDataFile"})
                elif server.deliver(f"{folder}/{name}", record, segment):
                    rows.append(row)
    return rows


def _advance(server: JsocServer, identity: str) -> Answer:
    export = server.exports[identity]
    status = export["states"].pop(0) if export["states"] else 0
    if status:
        return _queued(identity, status)
    export["states"] = []
    warning = {"record": "warning=a message among the rows", "filename": "none"}
    return {"status": 0, "requestid": identity, "method": "url", "protocol": "as-is",
            "dir": export["dir"], "wait": 0, "rcount": 1, "count": len(export["rows"]), "size": 3,
            "exptime": "2026.01.01_00:01:02_UT", "data": [*export["rows"], warning]}  # fmt: skip


def poll_export(server: JsocServer, identity: str) -> Answer:
    """Answer to exp_status."""
    if identity not in server.exports:
        return {
            "status": 6,
            "error": UNKNOWN + identity,
        }
    if server.exports[identity].get("deleted"):
        return {"status": 5, "error": "The export was deleted."}
    return _advance(server, identity)
