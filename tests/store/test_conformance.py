"""Every store passes the one suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from outlast.store import open_store
from outlast.store.protocol import Store
from outlast.testing.conformance import StoreConformance
from outlast.testing.conformance_access import AccessConformance
from outlast.testing.conformance_budgets import BudgetConformance
from outlast.testing.conformance_capacity import CapacityConformance
from outlast.testing.conformance_feed import FeedConformance
from outlast.testing.conformance_labels import LabelsConformance
from outlast.testing.conformance_members import MembersConformance
from outlast.testing.conformance_people import PeopleConformance
from outlast.testing.conformance_schedules import ScheduleConformance
from outlast.testing.conformance_streams import StreamsConformance
from outlast.testing.conformance_structure import StructureConformance


class Suite(
    StoreConformance,
    StructureConformance,
    StreamsConformance,
    ScheduleConformance,
    LabelsConformance,
    FeedConformance,
    MembersConformance,
    PeopleConformance,
    BudgetConformance,
    CapacityConformance,
    AccessConformance,
):
    """All there is."""


class TestMemory(Suite):
    @pytest.fixture
    def store(self) -> Iterator[Store]:
        store = open_store("memory:", owner="w1", now=1)
        yield store
        store.close()


class TestPostgres(Suite):
    @pytest.fixture
    def store(self, postgres_store: str) -> Iterator[Store]:
        store = open_store(postgres_store, owner="w1", now=1)
        yield store
        store.close()


class TestSqlite(Suite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = open_store(f"sqlite:///{tmp_path}/outlast.db", owner="w1", now=1)
        yield store
        store.close()
