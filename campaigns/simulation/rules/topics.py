"""The topics of rules, in the order in which they hear of things."""

from __future__ import annotations

from typing import Final

from campaigns.simulation.rules.able import Able
from campaigns.simulation.rules.capacity import Limits
from campaigns.simulation.rules.code import Code
from campaigns.simulation.rules.money import Money
from campaigns.simulation.rules.results import Results
from campaigns.simulation.rules.streams import Streams
from campaigns.simulation.rules.topic import Topic
from campaigns.simulation.rules.turns import Paces, Turns

TOPICS: Final[tuple[type[Topic], ...]] = (
    Able, Turns, Limits, Paces, Code, Money, Streams, Results,
)  # fmt: skip
