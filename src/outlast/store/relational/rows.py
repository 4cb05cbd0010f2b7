"""Between the records of the lifecycle and the rows of the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Final

import msgspec
from msgspec.structs import astuple

from outlast.lifecycle import Execution, Kind, Message, MessageKind, State, Transition
from outlast.lifecycle.record import COLUMNS, Data
from outlast.store.protocol import DEFAULT_NUMBER, InboxEntry

Value = None | int | float | bytes | str
"""What a column can hold."""

_STATES: Final[dict[str, State | None]] = {**{str(state): state for state in State}, "": None}
_KINDS: Final = {str(kind): kind for kind in Kind}
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def text_of(data: Data | None) -> str | None:
    """Write facts of the engine as JSON text."""
    return None if data is None else _encode(data).decode()


def data_of(text: object) -> Data | None:
    """Read facts of the engine."""
    if text is None:
        return None
    assert isinstance(text, str)
    data: Data = _decode(text)
    return data


def values_of_transition(row: Transition) -> tuple[Value, ...]:
    """Give the columns of a row of the log, in the order of ``insert_transitions``."""
    values: tuple[Value, ...] = astuple(row)
    if row.data is None and row.from_state is not None:
        return values  # as most: nothing of it is written otherwise
    return (*values[:4], row.from_state or "", *values[5:12], text_of(row.data), row.payload)


def transition_of(values: Sequence[object]) -> Transition:
    """Make a row of the log from its columns."""
    row = Transition(*values)  # type: ignore[arg-type]
    row.kind = _KINDS[row.kind]
    row.from_state = _STATES[row.from_state]  # type: ignore[index]
    row.to_state = _STATES[row.to_state]  # type: ignore[assignment]
    if row.data is not None:
        row.data = data_of(row.data)
    return row


def values_of_execution(record: Execution) -> tuple[Value, ...]:
    """Give the columns of an execution, in the order of ``insert_executions``."""
    return (*_plain(record), *_facts_of(record))


def plain_values_of(record: Execution) -> tuple[Value, ...] | None:
    """Give the columns of ``insert_plain_executions`` of a new execution that has no others.

    They say all of one that waits in its queue and was started without options, as most are.
    Returns None for any other.
    """
    if record.created_at == record.updated_at == record.state_at and _rest(record) == _REST:
        return own_values_of(record)
    return None


def key_of(values: tuple[Value, ...]) -> str:
    """Give the key among the columns of ``insert_executions``, or no text."""
    return str(values[_KEY] or "")


def changed_values_of(record: Execution) -> tuple[Value, ...]:
    """Give the columns that transitions change, in the order of ``save_executions``."""
    return (*_changed(record), *_facts_of(record))


CLAIMED: Final = (
    "state", "seq", "fence", "nonce", "worker", "high_water", "claims", "idle_claims", "updated_at",
    "state_at",
)  # fmt: skip
"""The columns that a claim changes; what was due, and the detail, it takes away."""
claimed_values_of: Final[Callable[[Execution], tuple[Value, ...]]] = attrgetter("id", *CLAIMED)
"""Give the columns of ``claim_executions``, in its order."""


def _facts_of(record: Execution) -> tuple[str | None, str | None, str | None]:
    return text_of(record.gates), text_of(record.labels), text_of(record.detail)


_plain: Final = attrgetter(*COLUMNS[:-3])
_KEY: Final = COLUMNS.index("key")
OWN: Final = ("id", "task", "created_at", "queue", "priority", "input_digest", "version")
"""The columns in which plain new executions differ; the other times are that of the birth, too. The
tenant stands in the statement; a record of another one is refused with its first row."""
own_values_of: Final[Callable[[Execution], tuple[Value, ...]]] = attrgetter(*OWN)
"""Give the columns of ``insert_plain_executions`` of one that has no others."""
_rest: Final = attrgetter(
    *[name for name in COLUMNS if name not in ("tenant", *OWN, "updated_at", "state_at")]
)
_REST: Final = _rest(Execution(DEFAULT_NUMBER, "", "", State.QUEUED, 1, cause="first"))
_changed: Final = attrgetter(
    *[
        "id",
        "state",
        "seq",
        "fence",
        "nonce",
        "worker",
        "high_water",
        "cause",
        "paused_from",
        "attempt",
        "failures",
        "claims",
    ],
    *[
        "idle_claims",
        "inbox_seen",
        "cancel_at",
        "pause_at",
        "updated_at",
        "state_at",
        "started_at",
        "due_at",
        "deadline_at",
    ],
    *["priority", "version", "start_by", "children"],
)


def execution_of(values: Sequence[object]) -> Execution:
    """Make an execution from its columns."""
    record = Execution(*values)  # type: ignore[arg-type]
    record.state = _STATES[record.state]  # type: ignore[assignment]
    if record.paused_from is not None:
        record.paused_from = _STATES[record.paused_from]
    if record.gates is not None:
        record.gates = data_of(record.gates)
    if record.labels is not None:
        record.labels = data_of(record.labels)
    if record.detail is not None:
        record.detail = data_of(record.detail)
    return record


def values_of_message(tenant: int, id: str, entry: InboxEntry) -> tuple[Value, ...]:
    """Give the columns of a message, in the order of ``insert_messages``."""
    message = entry.message
    return (
        tenant,
        id,
        entry.number,
        message.id,
        message.kind,
        message.actor,
        message.key,
        text_of(message.data),
        message.payload,
        entry.at,
    )


def entry_of(values: Sequence[object]) -> InboxEntry:
    """Make an entry of an inbox from its columns."""
    number, id, kind, actor, key, data, payload, at = values
    columns = (id, MessageKind(str(kind)), actor, key, data_of(data), payload)
    return InboxEntry(number, Message(*columns), at)  # type: ignore[arg-type]
