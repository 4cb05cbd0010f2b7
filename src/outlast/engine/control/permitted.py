"""What a token does: find its question, and turn an answer into a message."""

from __future__ import annotations

from collections.abc import Iterable

from outlast.duration import microseconds
from outlast.engine.control import token as tokens
from outlast.engine.control.token import Permit
from outlast.engine.read.questions import OpenQuestion, open_questions, pick
from outlast.engine.write.request import new_message
from outlast.errors import AlreadyAnswered, NotFound, TokenUsed, UsageError
from outlast.lifecycle import Execution as Record
from outlast.lifecycle import Kind, Message, MessageKind, Transition
from outlast.naming import checked_name

SPAN_MAX_US = microseconds("3650d")


def token_for(
    secret: bytes,
    question: OpenQuestion,
    actor: str,
    span_us: int,
    now: int,
    tenant: int,
) -> str:
    """Make a token that permits one answer to a question, for so long.

    Raises:
        UsageError: the time is none, or longer than ten years; or the actor is no name.
    """
    if not 0 < span_us <= SPAN_MAX_US:
        raise UsageError("a token is good for some time, ten years at most", do='expires="7d"')
    checked_name(actor, "actor")
    permitted = tokens.permit(
        question.execution_id,
        question.key,
        question.title,
        question.to,
        actor,
        now + span_us,
        tenant,
    )
    return tokens.sign(secret, permitted)


def permitted_question(permit: Permit, record: Record, log: list[Transition]) -> OpenQuestion:
    """Give the open question that a token is for.

    Raises:
        TokenUsed: it was answered by this token.
        AlreadyAnswered: it was answered otherwise.
        NotFound: it is open no more, or the code asks another one in its place.
    """
    try:
        question = pick(open_questions(record, log), permit.key, record, log)
    except AlreadyAnswered as error:
        raise answered(permit, log, error) from None
    if tokens.title_digest(question.title) != permit.title:
        raise NotFound(
            f"{record.id} asks another question now",
            where=f"{record.id}, {permit.key}",
            why="the code has changed since the token was made",
            do="ask for a new token",
        )
    return question


def permitted_answer(permit: Permit, question: OpenQuestion, value: object) -> Message:
    """Make the message of an answer.

    Raises:
        BadPayload: the answer does not have the form that is asked for.
    """
    return new_message(
        MessageKind.ANSWER,
        permit.actor,
        key=question.key,
        data={"token": permit.id},
        payload=question.check(value),
    )


def answered(permit: Permit, log: Iterable[Transition], error: AlreadyAnswered) -> AlreadyAnswered:
    """Tell whether the answer that won came by this token."""
    for row in log:
        is_it = row.kind is Kind.INPUT_RECEIVED and row.key == permit.key
        if is_it and row.data and row.data.get("token") == permit.id:
            return TokenUsed("this token was used before", where=error.where, do=error.do)
    return error
