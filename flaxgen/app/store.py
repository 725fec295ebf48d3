"""What lasts: jobs and pictures in SQLite, whose every change is whole or not there at all.

One connection behind one lock writes and reads; the file is in WAL mode, so that a process that is killed loses
nothing that was answered.
"""

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flaxgen.app.messages import OVER, Job, Picture

SCHEMA = """
CREATE TABLE IF NOT EXISTS users(name TEXT PRIMARY KEY, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS jobs(
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, user TEXT NOT NULL, model TEXT NOT NULL,
  verb TEXT NOT NULL, request TEXT NOT NULL, parent TEXT, state TEXT NOT NULL, step INTEGER NOT NULL DEFAULT 0,
  steps INTEGER NOT NULL DEFAULT 0, error TEXT, created REAL NOT NULL, started REAL, finished REAL,
  tries INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS jobs_of_user ON jobs(user, seq);
CREATE INDEX IF NOT EXISTS jobs_in_state ON jobs(state, seq);
CREATE TABLE IF NOT EXISTS pictures(
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, user TEXT NOT NULL, job TEXT, place INTEGER NOT NULL,
  model TEXT, verb TEXT, request TEXT, said TEXT NOT NULL, sha TEXT NOT NULL, bytes INTEGER NOT NULL,
  width INTEGER NOT NULL, height INTEGER NOT NULL, favourite INTEGER NOT NULL DEFAULT 0, created REAL NOT NULL,
  parent TEXT, kind TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS pictures_of_user ON pictures(user, seq);
CREATE INDEX IF NOT EXISTS pictures_of_job ON pictures(job, place);
CREATE INDEX IF NOT EXISTS pictures_from ON pictures(parent);
CREATE INDEX IF NOT EXISTS pictures_in_file ON pictures(sha);
"""
VERSION = 1
"""Of the schema, in SQLite's user_version."""
TRIES = 3
"""How often a job is begun that takes the server down."""
ANCESTORS = 100
"""How far back a history goes."""


def new_id() -> str:
    """22 characters that nobody can guess."""
    return secrets.token_urlsafe(16)


class Kept(NamedTuple):
    """A picture's file: the hash of its content, its size in bytes, width and height."""

    sha: str
    bytes: int
    width: int
    height: int


class Waiting(NamedTuple):
    """A job that is not over, and whose it is."""

    user: str
    job: Job


class Store:
    """The database in that file; any thread may call anything.

    Raises:
        ValueError: if a newer flaxgen wrote it.
    """

    def __init__(self, path: Path):
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found > VERSION:
            raise ValueError(f"{path} is of version {found}, and this flaxgen knows {VERSION}: name another --folder")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.executescript(SCHEMA + f"PRAGMA user_version={VERSION};")

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()

    def _rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def _change(self, *statements: tuple[str, Iterable[Any]]) -> None:
        """All of the statements, or none."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for sql, values in statements:
                    self._db.execute(sql, tuple(values))
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    # Jobs

    def add_job(
        self, user: str, model: str, verb: str, request: Mapping[str, Any], parent: str | None, keep: int
    ) -> str:
        """Puts a job down as queued, and forgets the user's oldest finished ones beyond `keep`; returns its id."""
        job, now = new_id(), time.time()
        over = ", ".join(f"'{state}'" for state in OVER)
        self._change(
            ("INSERT OR IGNORE INTO users VALUES (?, ?)", (user, now)),
            (
                "INSERT INTO jobs(id, user, model, verb, request, parent, state, created) "
                "VALUES (?, ?, ?, ?, ?, ?, 'queued', ?)",
                (job, user, model, verb, json.dumps(request), parent, now),
            ),
            (
                f"DELETE FROM jobs WHERE user = ? AND state IN ({over}) AND seq <= "
                f"(SELECT seq FROM jobs WHERE user = ? AND state IN ({over}) ORDER BY seq DESC LIMIT 1 OFFSET ?)",
                (user, user, keep),
            ),
        )
        return job

    def job(self, job: str, user: str | None = None) -> Job | None:
        """A job, of that user where one is named."""
        rows = self._rows("SELECT * FROM jobs WHERE id = ? AND (? IS NULL OR user = ?)", job, user, user)
        return self._as_job(rows[0]) if rows else None

    def owner(self, job: str) -> str:
        """Whose job it is."""
        return self._rows("SELECT user FROM jobs WHERE id = ?", job)[0][0]

    def jobs(self, user: str, state: str | None, before: str | None, limit: int) -> list[Job]:
        """A user's jobs, the newest first: those in a state, and those older than the job `before`."""
        rows = self._rows(
            "SELECT * FROM jobs WHERE user = ? AND (? IS NULL OR state = ?) AND "
            "(? IS NULL OR seq < (SELECT seq FROM jobs WHERE id = ? AND user = ?)) ORDER BY seq DESC LIMIT ?",
            user, state, state, before, before, user, limit,
        )  # fmt: skip
        return [self._as_job(row) for row in rows]

    def unfinished(self, user: str | None = None) -> list[Waiting]:
        """The jobs that are queued or running, the oldest first."""
        rows = self._rows(
            "SELECT * FROM jobs WHERE state IN ('queued', 'running') AND (? IS NULL OR user = ?) ORDER BY seq",
            user,
            user,
        )
        return [Waiting(row["user"], self._as_job(row)) for row in rows]

    def start(self, job: str) -> None:
        """A job runs from now on."""
        sql = "UPDATE jobs SET state = 'running', started = ?, tries = tries + 1 WHERE id = ?"
        self._change((sql, (time.time(), job)))

    def is_fresh(self, job: str) -> bool:
        """Whether a job was never begun."""
        return bool(self._rows("SELECT 1 FROM jobs WHERE id = ? AND tries = 0", job))

    def put_back(self, job: str) -> None:
        """A job that runs waits again, as if it had not been tried."""
        sql = "UPDATE jobs SET state = 'queued', started = NULL, step = 0, tries = tries - 1 "
        sql += "WHERE id = ? AND state = 'running'"
        self._change((sql, (job,)))

    def requeue(self) -> None:
        """What was running when the server was killed waits again; what it was killed with TRIES times has failed."""
        said = f"the server was killed {TRIES} times while it drew this"
        over = "UPDATE jobs SET state = 'failed', error = ?, finished = ? WHERE state = 'running' AND tries >= ?"
        again = "UPDATE jobs SET state = 'queued', started = NULL, step = 0 WHERE state = 'running'"
        self._change((over, (said, time.time(), TRIES)), (again, ()))

    def move(self, job: str, step: int, steps: int) -> None:
        """A job has come so far."""
        self._change(("UPDATE jobs SET step = ?, steps = ? WHERE id = ?", (step, steps, job)))

    def end(self, job: str, state: str, error: str | None = None) -> None:
        """A job is over without pictures, if it was not over before."""
        self._change(
            (
                "UPDATE jobs SET state = ?, error = ?, finished = ? WHERE id = ? AND state IN ('queued', 'running')",
                (state, error, time.time(), job),
            )
        )

    def finish(self, job: str, files: Iterable[Kept]) -> list[str]:
        """A job is done and these are its pictures; returns their ids."""
        row, now = self._rows("SELECT * FROM jobs WHERE id = ?", job)[0], time.time()
        said, files = _said(json.loads(row["request"])), list(files)
        ids = [new_id() for _ in files]
        drawn = [
            _inserted(file._asdict() | {
                "id": id, "user": row["user"], "job": job, "place": place, "model": row["model"], "verb": row["verb"],
                "request": row["request"], "said": said, "created": now, "parent": row["parent"], "kind": "drawn",
            })
            for place, (id, file) in enumerate(zip(ids, files, strict=True))
        ]  # fmt: skip
        self._change(*drawn, ("UPDATE jobs SET state = 'done', step = steps, finished = ? WHERE id = ?", (now, job)))
        return ids

    def _as_job(self, row: sqlite3.Row) -> Job:
        drawn = self._rows("SELECT id FROM pictures WHERE job = ? ORDER BY place", row["id"])
        fields = {name: row[name] for name in Job.model_fields if name in row.keys()}  # noqa: SIM118
        return Job(**fields | {"request": json.loads(row["request"]), "pictures": [one[0] for one in drawn]})

    # Pictures

    def add_upload(self, user: str, file: Kept) -> str:
        """A picture that was uploaded; returns its id."""
        id, now = new_id(), time.time()
        self._change(
            ("INSERT OR IGNORE INTO users VALUES (?, ?)", (user, now)),
            _inserted(
                file._asdict() | {"id": id, "user": user, "place": 0, "said": "", "created": now, "kind": "upload"}
            ),
        )
        return id

    def picture(self, picture: str, user: str) -> Picture | None:
        """A picture of that user."""
        rows = self._rows("SELECT * FROM pictures WHERE id = ? AND user = ?", picture, user)
        return _as_picture(rows[0]) if rows else None

    def file(self, picture: str, user: str) -> str | None:
        """The hash of the content of a picture of that user."""
        rows = self._rows("SELECT sha FROM pictures WHERE id = ? AND user = ?", picture, user)
        return rows[0][0] if rows else None

    def holder(self, picture: str) -> str | None:
        """Whose picture it is."""
        rows = self._rows("SELECT user FROM pictures WHERE id = ?", picture)
        return rows[0][0] if rows else None

    def gallery(
        self, user: str, search: str, favourite: bool, verb: str | None, before: int | None, limit: int
    ) -> tuple[list[Picture], str | None]:
        """A user's pictures, the newest first, whose captions have all words of `search`; and where the next begin."""
        clauses: list[str] = ["user = ?"]
        values: list[Any] = [user]
        for word in search.split():
            escaped = word.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
            clauses.append("said LIKE ? ESCAPE '\\'")
            values.append(f"%{escaped}%")
        if favourite:
            clauses.append("favourite = 1")
        for clause, value in (("verb = ?", verb), ("seq < ?", before)):
            if value is not None:
                clauses.append(clause)
                values.append(value)
        sql = f"SELECT * FROM pictures WHERE {' AND '.join(clauses)} ORDER BY seq DESC LIMIT ?"
        rows = self._rows(sql, *values, limit + 1)
        shown = rows[:limit]
        return [_as_picture(row) for row in shown], str(shown[-1]["seq"]) if len(rows) > limit else None

    def ancestors(self, picture: str, user: str) -> list[Picture]:
        """What a picture came from, nearest first."""
        found: list[Picture] = []
        known = self.picture(picture, user)
        while known is not None and known.parent is not None and len(found) < ANCESTORS:
            known = self.picture(known.parent, user)
            found += [known] if known is not None else []
        return found

    def children(self, picture: str, user: str, limit: int) -> list[Picture]:
        """What came of a picture, the newest first."""
        sql = "SELECT * FROM pictures WHERE parent = ? AND user = ? ORDER BY seq DESC LIMIT ?"
        return [_as_picture(row) for row in self._rows(sql, picture, user, limit)]

    def mark(self, picture: str, user: str, favourite: bool) -> None:
        """Makes a picture a favourite, or not."""
        self._change(("UPDATE pictures SET favourite = ? WHERE id = ? AND user = ?", (favourite, picture, user)))

    def delete(self, picture: str, user: str) -> str | None:
        """Forgets a picture of that user; returns the hash of its content where no other picture has it."""
        with self._lock:
            sha = self.file(picture, user)
            self._change(("DELETE FROM pictures WHERE id = ? AND user = ?", (picture, user)))
            return None if sha is None or self.has_file(sha) else sha

    def has_file(self, sha: str) -> bool:
        """Whether a picture has this content."""
        return bool(self._rows("SELECT 1 FROM pictures WHERE sha = ? LIMIT 1", sha))

    def files(self) -> set[str]:
        """The hashes of all contents."""
        return {row[0] for row in self._rows("SELECT DISTINCT sha FROM pictures")}

    def stored(self, user: str | None = None) -> int:
        """Bytes of the pictures of a user, or of all."""
        sql = "SELECT COALESCE(SUM(bytes), 0) FROM pictures WHERE ? IS NULL OR user = ?"
        return self._rows(sql, user, user)[0][0]


def _said(request: Mapping[str, Any]) -> str:
    """The words of a request, for searching."""
    texts = (value if isinstance(value, list) else [value] for name, value in request.items() if "caption" in name)
    return " ".join(str(text) for many in texts for text in many)


def _inserted(fields: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
    names, marks = ", ".join(fields), ", ".join("?" * len(fields))
    return f"INSERT INTO pictures({names}) VALUES ({marks})", tuple(fields.values())


def _as_picture(row: sqlite3.Row) -> Picture:
    fields = {name: row[name] for name in Picture.model_fields if name in row.keys()}  # noqa: SIM118
    request = None if row["request"] is None else json.loads(row["request"])
    return Picture(**fields | {"request": request, "index": row["place"], "favourite": bool(row["favourite"])})
