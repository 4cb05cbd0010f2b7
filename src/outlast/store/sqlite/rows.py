"""Between the records of the lifecycle and the rows of the database."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Final

import msgspec

from outlast.lifecycle import Execution, Kind, Message, MessageKind, State, Transition
from outlast.lifecycle.record import COLUMNS, Data
from outlast.store.protocol import InboxEntry

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
    return (
        row.tenant,
        row.execution_id,
        row.seq,
        row.kind,
        row.from_state or "",
        row.to_state,
        row.fence,
        row.nonce,
        row.actor,
        row.at,
        row.key,
        row.digest,
        text_of(row.data),
        row.payload,
    )


def transition_of(values: Sequence[object]) -> Transition:
    """Make a row of the log from its columns."""
    (tenant, id, seq, kind, source, target, fence, nonce, actor, at, key, digest, data, payload) = (
        values
    )
    into = _STATES[target]  # type: ignore[index]
    assert into is not None
    return Transition(
        tenant,
        id,
        seq,
        _KINDS[kind],
        _STATES[source],
        into,  # type: ignore[arg-type,index]
        fence,
        nonce,
        actor,
        at,
        key,
        digest,
        data_of(data),
        payload,  # type: ignore[arg-type]
    )


def values_of_execution(record: Execution) -> tuple[Value, ...]:
    """Give the columns of an execution, in the order of ``insert_executions``."""
    return (*_all_but_detail(record), text_of(record.detail))


def changed_values_of(record: Execution) -> tuple[Value, ...]:
    """Give the columns that transitions change, in the order of ``save_executions``."""
    return (*_changed(record), text_of(record.detail))


_all_but_detail: Final = attrgetter(*COLUMNS[:-1])
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
        "state_at",
        "started_at",
        "due_at",
        "deadline_at",
    ],
    *["priority", "version"],
)


_STATE_AT: Final = 3
_PAUSED_FROM: Final = 10
_DETAIL: Final = 31


def execution_of(values: Sequence[object]) -> Execution:
    """Make an execution from its columns."""
    columns = list(values)
    columns[_STATE_AT] = _STATES[columns[_STATE_AT]]  # type: ignore[index]
    columns[_PAUSED_FROM] = _STATES[columns[_PAUSED_FROM] or ""]  # type: ignore[index]
    columns[_DETAIL] = data_of(columns[_DETAIL])
    return Execution(*columns)  # type: ignore[arg-type]


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
    message = Message(
        id,
        MessageKind(str(kind)),
        actor,
        key,
        data_of(data),
        payload,  # type: ignore[arg-type]
    )
    return InboxEntry(number, message, at)  # type: ignore[arg-type]
