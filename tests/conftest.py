"""What holds for all tests."""

from __future__ import annotations

import pytest

# Before anything imports it: its assertions are to say what they saw.
pytest.register_assert_rewrite("outlast.testing.conformance")
