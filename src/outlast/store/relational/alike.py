"""Births that are alike: decided once, so that a backend writes many of them by two statements.

Theory of operation. They differ in three columns of a row of the log (execution, input, and the
digest of the input among the facts) and two of an execution's row. The first is decided by the
lifecycle, as any birth; its rows say what all have in common, and a backend that overrides
``Database.bear`` sends that once, and the rest in whatever form its driver carries best.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from outlast.lifecycle import Transition
from outlast.store.decisions import births_of
from outlast.store.protocol import Create, CreateMany
from outlast.store.relational.rows import OWN, Value, own_values_of, text_of

_DIGEST: Final = "0}"
"""How the facts of a birth end, whose input has the digest 0."""


def common_to(item: CreateMany, tenant: int) -> Mapping[str, Value]:
    """Give what all of them have: the columns of a plain birth, ``actor``, and ``facts``.

    ``facts`` is the text of the facts as far as the digest of the input, which is the last one.

    Raises:
        InternalError: they have more than all have.
    """
    birth = _first_of(item, tenant, 0)
    facts = text_of(birth.rows[0].data)
    assert facts is not None and facts.endswith(_DIGEST)
    common = dict(zip(OWN, own_values_of(birth.after), strict=True))
    del common["id"], common["input_digest"]
    return {**common, "actor": item.birth.actor, "facts": facts.removesuffix(_DIGEST)}


def rows_of(item: CreateMany, tenant: int) -> list[Transition]:
    """Give the rows of their logs, for whoever hears of them.

    Raises:
        InternalError: they have more than all have.
    """
    row = _first_of(item, tenant, item.digests[0]).rows[0]
    kind, state, actor, at, facts = row.kind, row.to_state, row.actor, row.at, item.birth.data or {}
    return [
        Transition(
            *(tenant, id, 1, kind, None, state, 0, None, actor, at, None, None),
            {**facts, "input_digest": digest},
            payload,
        )
        for id, payload, digest in zip(item.ids, item.payloads, item.digests, strict=True)
    ]


def _first_of(item: CreateMany, tenant: int, digest: int) -> Create:
    one = replace(item, ids=item.ids[:1], payloads=item.payloads[:1], digests=[digest])
    return next(births_of(one, tenant))


__all__ = ["common_to", "rows_of"]
