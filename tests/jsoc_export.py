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
    if pending:
        return {"status": 7, "error": f"User has {len(pending)} pending export requests: {pending};"
                                      " please wait until one completes"}  # fmt: skip
    text = query["ds"][0]
    rows = []
    folder = f"/SUM75/D{1999000111 + len(server.exports)}/S00000"
    try:
        for record_set, segments in split_sets(text):
            for record in select(server.archive, record_set):
                for segment in segments or []:
                    name = relative_path(record, segment).rpartition("/")[2]
                    if server.deliver(f"{folder}/{name}", record, segment):
                        rows.append({"record": f"{record}{{{segment}}}", "filename": name})
    except Refused:
        return {"status": 4, "error": "The record-set query is malformed."}
    if not rows:
        return {"status": 4, "error": "There are no files in this RecordSet"}
    identity = f"JSOC_20260101_{len(server.exports) + 1:06d}"
    states = [*server.export_states]
    server.exports[identity] = {"states": states, "rows": rows, "dir": folder}
    return _queued(identity, states.pop(0)) if states[0] else _advance(server, identity)


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
