"""All who use the engines beside clients and planners; each draws whether it is in a world."""

from __future__ import annotations

from typing import Any, Final

from campaigns.simulation.actors.crowds import Crowds
from campaigns.simulation.actors.housekeeper import Housekeeper
from campaigns.simulation.actors.readers import Readers
from campaigns.simulation.actors.rivals import Rivals

CAST: Final[tuple[Any, ...]] = (Crowds, Rivals, Housekeeper, Readers)
"""Each is called with the market and dice of its own; some have something to finish at the end."""
