"""What is made of an execution that is deleted while it is read."""

from __future__ import annotations

import pytest

from outlast import task
from outlast.engine.control.descent import Descent, Mode, descend
from outlast.engine.engine import Engine
from outlast.engine.read.measures import measures_of
from outlast.errors import NotFound


@task
async def deleted_plain() -> int:
    return 1


def test_who_reads_a_log_that_has_just_gone_is_told_so() -> None:
    with Engine("memory:", tasks=[deleted_plain]) as engine:
        handle = engine.start(deleted_plain)
        assert handle.result("100s") == 1
        record = engine.store.get([handle.id])[0]
        assert record is not None
        with pytest.raises(NotFound, match="deleted"):
            descend(record, [], Descent(mode=Mode.RERUN), deleted_plain, engine.new_id(), 0)
        with pytest.raises(NotFound, match="deleted"):
            measures_of(handle.id, [], 0)
