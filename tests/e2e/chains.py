"""Audit chains as they are stored, verified by what `docs/audit.md` says and by nothing of Weft's own code.

Rows are read below the API: from the file of the embedded store, or from what Azurite has written when it was stopped.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
import struct
from collections import defaultdict
from pathlib import Path
from typing import Any

Properties = dict[str, Any]


class Broken(Exception):  # noqa: N818
    """A chain that doesn't verify."""


class Rows:
    """Rows of tables by partition."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, dict[str, Properties]]] = defaultdict(lambda: defaultdict(dict))

    @classmethod
    def of_file(cls, database: Path) -> Rows:
        """The embedded store; how properties lie in a column is said in `src/store/sqlite/encoding.rs`."""
        rows = cls()
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            found = connection.execute(
                "SELECT tables.name, partition, row, props FROM entity JOIN tables ON tables.id = entity.tbl"
            )
            for table, partition, row, column in found:
                rows.tables[table][partition][row] = _decoded(column)
        return rows

    @classmethod
    def of_azurite(cls, folder: Path) -> Rows:
        """What the emulator wrote when it was stopped."""
        rows = cls()
        for collection in json.loads((folder / "__azurite_db_table__.json").read_text())["collections"]:
            _, _, table = collection["name"].partition("$")
            for entity in collection["data"]:
                if "RowKey" not in entity:
                    continue
                told = entity["properties"]
                rows.tables[table][entity["PartitionKey"]][entity["RowKey"]] = {
                    name: _typed(value, told.get(f"{name}@odata.type"))
                    for name, value in told.items()
                    if "@" not in name
                }
        return rows


def _typed(value: Any, kind: str | None) -> Any:
    if kind == "Edm.Binary":
        return base64.b64decode(value)
    return int(value) if kind == "Edm.Int64" else value


def _decoded(column: bytes) -> Properties:
    properties: Properties = {}
    assert column[0] == 1, column[0]
    place = 1
    while place < len(column):
        length = column[place]
        name = column[place + 1 : place + 1 + length].decode()
        place += 1 + length
        tag = column[place : place + 1]
        place += 1
        if tag in (b"t", b"b"):
            (size,) = struct.unpack_from("<I", column, place)
            raw = column[place + 4 : place + 4 + size]
            properties[name] = raw.decode() if tag == b"t" else raw
            place += 4 + size
        elif tag in (b"i", b"z", b"d"):
            (properties[name],) = struct.unpack_from("<d" if tag == b"d" else "<q", column, place)
            place += 8
        else:
            assert tag in (b"0", b"1"), tag
            properties[name] = tag == b"1"
    return properties


def _verify(chain: str, records: list[Properties], sequence: int, head: bytes) -> list[dict[str, Any]]:
    """The plain parts of a chain's records, when they are whole up to the head and nothing else is there."""
    before = bytes(32)
    for number, record in enumerate(records, 1):
        if record["seq"] != number:
            raise Broken(f"{chain} has record {record['seq']} in place {number}")
        if record["prev"] != before:
            raise Broken(f"record {number} of {chain} doesn't follow the one before it")
        fields = [
            b"weft.audit/1",
            before,
            chain.encode(),
            number.to_bytes(8, "big"),
            record["body"].encode(),
            record.get("actor", "").encode(),
            record.get("actorSealed", b""),
            record.get("about", "").encode(),
            record.get("aboutSealed", b""),
        ]
        whole = b"".join(len(one).to_bytes(8, "big") + one for one in fields)
        before = hashlib.sha256(whole).digest()
        if record["hash"] != before:
            raise Broken(f"record {number} of {chain} was changed")
    if (sequence, head) != (len(records), before):
        raise Broken(f"{chain} has {len(records)} records, and its head says {sequence}, or another hash")
    return [json.loads(record["body"]) for record in records]


def _records(rows: dict[str, Properties]) -> list[Properties]:
    return [rows[name] for name in sorted(rows) if name.startswith("audit:")]


def verify_run(rows: Rows, run: str, organization: str = "contoso") -> list[dict[str, Any]]:
    """The records of a run's chain, verified against the head in the run's header."""
    mine = rows.tables[f"org{organization}"][f"run:{run}"]
    if "header" not in mine:
        raise Broken(f"{run} has no header")
    header = mine["header"]
    chain = f"run:{organization}:{run}"
    return _verify(chain, _records(mine), header["auditSequence"], header["auditHash"])


def verify_day_chains(rows: Rows) -> int:
    """All chains of days and of seals of all owners against their head rows; how many there are."""
    verified = 0
    for table, partitions in rows.tables.items():
        owner = "-" if table == "WeftAudit" else table.removeprefix("org")
        for partition, mine in partitions.items():
            if partition.startswith("audit:"):
                chain = f"day:{owner}:{partition.removeprefix('audit:')}"
            elif partition == "audit-seal":
                chain = f"seal:{owner}"
            else:
                continue
            records = _records(mine)
            if not records and "head" not in mine:
                continue
            sequence, _, digest = mine["head"]["head"].partition(":")
            _verify(chain, records, int(sequence), bytes.fromhex(digest))
            verified += 1
    return verified
