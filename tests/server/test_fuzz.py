"""The short form of ``python -m campaigns.fuzz``."""

from __future__ import annotations

import pytest

from campaigns.fuzz import fuzz
from outlast.server.table import ROUTES


@pytest.mark.timeout(600)
def test_requests_that_fit_and_such_that_do_not() -> None:
    report = fuzz(each=2, seed=0)
    assert report.failures == []
    assert report.requests > 150 and len(report.operations) >= len(ROUTES) - 5
    assert {200, 202, 404, 422} <= report.statuses.keys()
    assert max(report.statuses) < 500
