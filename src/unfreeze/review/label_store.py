"""What people said of clips: one SQLite file, one row for each decision.

Invariants:
- a decision is on disk before the call that makes it returns: each is one transaction, in
  write-ahead mode with a flush at its end (https://sqlite.org/wal.html,
  https://sqlite.org/pragma.html#pragma_synchronous);
- a row is never removed or changed, but for the time at which it stopped to count: an undone or
  replaced decision stays as history;
- at most one decision counts for a stretch of sound, whoever makes it in whichever tab;
- the file says which run, sounds and length of clips it belongs to.
"""

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unfreeze.errors import RunError, UnfreezeError, show
from unfreeze.files import make_folder
from unfreeze.output_folder import differences

#: The file in the folder of a review.
STORE_NAME = "labels.sqlite"
#: What can be said of a clip: it is the class that was asked for; it is not; it is another class;
#: it cannot be said; not now.
ANSWERS = YES, NO, OTHER, UNSURE, SKIP = "yes", "no", "other", "unsure", "skip"
#: Why a decision no longer counts.
UNDONE, REPLACED = "undo", "replaced"
_FORMAT = 1
# Seconds that one tab waits for another one's transaction, which takes milliseconds.
_WAIT = 30.0
# Seconds: times are compared after a way through text and float32.
_ROUNDING = 1e-4
_TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE decisions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    recording BLOB NOT NULL, start REAL NOT NULL, end REAL NOT NULL,
    answer TEXT NOT NULL, label TEXT, asked TEXT NOT NULL, score REAL,
    found_by TEXT NOT NULL, tab TEXT NOT NULL, made_at TEXT NOT NULL,
    ended_at TEXT, ended_by TEXT
);
CREATE UNIQUE INDEX one_counts ON decisions (recording, start, end) WHERE ended_at IS NULL;
CREATE INDEX by_recording ON decisions (recording) WHERE ended_at IS NULL;
CREATE TABLE trainings (
    number INTEGER PRIMARY KEY, state TEXT NOT NULL, labels INTEGER NOT NULL,
    last_decision INTEGER NOT NULL, begun_at TEXT NOT NULL, ended_at TEXT, result TEXT
);
"""


@dataclass(frozen=True)
class Answer:
    """What someone said of a clip.

    Attributes:
        recording: the file.
        start: seconds from its start.
        end: seconds, above `start`.
        answer: one of `ANSWERS`.
        label: the class that is heard, for "yes" and "other"; else None.
        asked: the class that the question named.
        score: the model's for that class then, or None.
        found_by: the order that brought the clip, such as "uncertain".
        tab: which page it was said on.
    """

    recording: Path
    start: float
    end: float
    answer: str
    label: str | None
    asked: str
    score: float | None = None
    found_by: str = ""
    tab: str = ""

    def __post_init__(self) -> None:
        if self.answer not in ANSWERS:
            raise UnfreezeError(f"{self.answer!r} is no answer: give one of {', '.join(ANSWERS)}")
        if (self.label is not None) != (self.answer in (YES, OTHER)):
            raise UnfreezeError(f"the answer {self.answer!r} and the label {self.label!r} disagree")
        if not 0 <= self.start < self.end:
            raise UnfreezeError(f"a clip cannot be from {self.start} to {self.end} s")


@dataclass(frozen=True)
class Decision(Answer):
    """An answer that is on disk.

    Attributes:
        number: counts up; later decisions have larger numbers.
        made_at: when, in ISO 8601, UTC.
        ended_at: when it stopped to count; None while it does.
        ended_by: why: "undo" or "replaced".
    """

    number: int = 0
    made_at: str = ""
    ended_at: str | None = None
    ended_by: str | None = None


@dataclass(frozen=True)
class TrainingRecord:
    """A training that was begun from the labels.

    Attributes:
        number: 1 for the first.
        state: "running", "done" or "failed".
        labels: how many clips with a label it was given.
        last_decision: the number of the last decision that it knew.
        result: JSON values; what changed, or why it failed.
    """

    number: int
    state: str
    labels: int
    last_decision: int
    result: dict[str, Any]


class TakenError(UnfreezeError):
    """A clip that has been decided already, on another page or under another division.

    Attributes:
        decision: what counts now.
    """

    def __init__(self, decision: Decision) -> None:
        said = decision.label or decision.answer
        super().__init__(f"this clip was already decided: {show(said)}. Replace that, or go on")
        self.decision = decision


class LabelStore:
    """The decisions of one review. Any thread may use it; each call has its own connection.

    Args:
        folder: of the review; made if missing.
        about: JSON values that say what the labels belong to. A store of others is refused.

    Raises:
        RunError: the file is of another review, or damaged, or cannot be written.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        make_folder(folder)
        self.path = folder / STORE_NAME
        with self._guarded(), self._open() as db:
            db.execute("PRAGMA journal_mode = WAL")
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if version == 0:
                self._make(db, about)
            elif version != _FORMAT:
                raise RunError(
                    f"{show(self.path)} has format {version}; this version of unfreeze reads "
                    f"{_FORMAT}. Give another --out."
                )
            else:
                self._compare(db, about)

    def decide(self, answer: Answer, *, replace: bool = False) -> Decision:
        """Keep an answer; it is on disk when this returns.

        Args:
            answer: what was said.
            replace: whether a decision on the same stretch, or on a part of it, ends by this one.

        Raises:
            TakenError: the clip is decided already, and `replace` is not set. The same answer
                once more is none: a page that sent it twice gets the first.
        """
        key = _as_key(answer.recording)
        with self._guarded(), self._writing() as db:
            there = [_decision(row) for row in db.execute(
                "SELECT * FROM decisions WHERE ended_at IS NULL AND recording = ? "
                "AND start < ? AND end > ? ORDER BY id",
                (key, answer.end - _ROUNDING, answer.start + _ROUNDING),
            )]  # fmt: skip
            # One that was skipped is still to be decided.
            mine = [one for one in there if one.answer == SKIP or replace]
            taken = [one for one in there if one not in mine]
            if taken:
                first = taken[0]
                if _said(first) == _said(answer):
                    return first
                raise TakenError(first)
            for one in mine:
                _end(db, one.number, REPLACED)
            made = _now()
            values = (
                *(key, answer.start, answer.end, answer.answer, answer.label, answer.asked),
                *(answer.score, answer.found_by, answer.tab, made),
            )
            cursor = db.execute(
                "INSERT INTO decisions (recording, start, end, answer, label, asked, score, "
                "found_by, tab, made_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )
            row = db.execute("SELECT * FROM decisions WHERE id = ?", (cursor.lastrowid,))
            return _decision(row.fetchone())

    def undo(self, tab: str) -> Decision | None:
        """End the last decision that a page has made and that counts; None without one.

        What it had replaced does not come back: both stay in the history.
        """
        with self._guarded(), self._writing() as db:
            row = db.execute(
                "SELECT * FROM decisions WHERE ended_at IS NULL AND tab = ? ORDER BY id DESC",
                (tab,),
            ).fetchone()
            if row is None:
                return None
            _end(db, row["id"], UNDONE)
            return _decision(row)

    def decisions(self) -> list[Decision]:
        """All decisions that count, in the order in which they were made."""
        return self._read("WHERE ended_at IS NULL")

    def history(self) -> list[Decision]:
        """All decisions ever made, also undone and replaced ones."""
        return self._read("")

    def begin_training(self, labels: int, last_decision: int) -> int:
        """Record that a training begins; return its number."""
        with self._guarded(), self._writing() as db:
            cursor = db.execute(
                "INSERT INTO trainings (state, labels, last_decision, begun_at) "
                "VALUES ('running', ?, ?, ?)",
                (labels, last_decision, _now()),
            )
            return int(cursor.lastrowid or 0)

    def end_training(self, number: int, state: str, result: Mapping[str, Any]) -> None:
        """Record how a training ended.

        Args:
            number: from `begin_training`.
            state: "done" or "failed".
            result: JSON values to keep with it.
        """
        with self._guarded(), self._writing() as db:
            db.execute(
                "UPDATE trainings SET state = ?, ended_at = ?, result = ? WHERE number = ?",
                (state, _now(), json.dumps(dict(result)), number),
            )

    def trainings(self) -> list[TrainingRecord]:
        """All trainings, in the order in which they began.

        One that is "running" while no process trains was killed.
        """
        with self._guarded(), self._open() as db:
            rows = db.execute("SELECT * FROM trainings ORDER BY number").fetchall()
        return [
            TrainingRecord(
                *(row["number"], row["state"], row["labels"], row["last_decision"]),
                json.loads(row["result"] or "{}"),
            )
            for row in rows
        ]

    def _read(self, where: str) -> list[Decision]:
        with self._guarded(), self._open() as db:
            rows = db.execute(f"SELECT * FROM decisions {where} ORDER BY id").fetchall()
        return [_decision(row) for row in rows]

    def _make(self, db: sqlite3.Connection, about: Mapping[str, Any]) -> None:
        # `executescript` would end the transaction before the version is set.
        db.execute("BEGIN IMMEDIATE")
        for statement in _TABLES.split(";\n"):
            if statement.strip():
                db.execute(statement)
        rows = [(name, json.dumps(value)) for name, value in about.items()]
        db.executemany("INSERT INTO about VALUES (?, ?)", rows)
        db.execute(f"PRAGMA user_version = {_FORMAT}")
        db.execute("COMMIT")

    def _compare(self, db: sqlite3.Connection, about: Mapping[str, Any]) -> None:
        before = {r["name"]: json.loads(r["value"]) for r in db.execute("SELECT * FROM about")}
        changed = differences({**dict.fromkeys(about), **before}, about)
        if changed:
            raise RunError(
                f"{show(self.path)} holds the labels of another review ({'; '.join(changed)}): use "
                "those, or give another --out"
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self.path, timeout=_WAIT, isolation_level=None)
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA synchronous = FULL")
            yield db
        finally:
            db.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction; no other one writes between what it reads and what it writes."""
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise RunError(
                f"{show(self.path)} cannot be used ({error}). Nothing that was kept before is "
                "lost. Free space on the disk if it is full, and see that you may write there"
            ) from error
        except sqlite3.Error as error:
            raise RunError(
                f"{show(self.path)} is damaged ({error}). Keep it: `sqlite3 {STORE_NAME} .recover` "
                "may read what is left, and tables beside it (labels-1.csv) have the labels of "
                "each training. To start again, give another --out"
            ) from error


def _decision(row: sqlite3.Row) -> Decision:
    place = row["recording"]
    return Decision(
        Path(os.fsdecode(place)),
        *(row[name] for name in (
            "start", "end", "answer", "label", "asked", "score", "found_by", "tab", "id",
            "made_at", "ended_at", "ended_by",
        )),
    )  # fmt: skip


def _said(answer: Answer) -> tuple[object, ...]:
    """What makes two answers on a stretch the same: "no" to another class is another answer."""
    said = answer.answer, answer.label, answer.tab, answer.start, answer.end
    return said if answer.label is not None else (*said, answer.asked)


def _as_key(recording: Path) -> str | bytes:
    """A path as SQLite can hold it: as bytes where it is not UTF-8."""
    text = str(recording.absolute())
    try:
        text.encode()
    except UnicodeEncodeError:
        return os.fsencode(text)
    return text


def _end(db: sqlite3.Connection, number: int, why: str) -> None:
    db.execute(
        "UPDATE decisions SET ended_at = ?, ended_by = ? WHERE id = ?", (_now(), why, number)
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
