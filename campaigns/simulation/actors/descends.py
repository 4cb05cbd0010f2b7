"""Who makes executions of others: reruns, forks, recoveries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from campaigns.simulation.rules.descents import RULE
from outlast.engine.control.descent import Descent, Mode, steps_of
from outlast.errors import NotRecoverable, OutlastError, StoreUnavailable, UnknownStep
from outlast.lifecycle import State

if TYPE_CHECKING:
    from campaigns.simulation.world.market import Market
    from campaigns.simulation.world.node import SimEngine

AGAIN_US: Final = 70_000
_MODES: Final = (Mode.RERUN, Mode.FORK, Mode.FORK, Mode.RECOVER, Mode.RECOVER)


class Descends:
    """Makes an execution of another one, and asks again under the same key until it is heard."""

    def __init__(self, market: Market, source_id: str, key: str) -> None:
        self._market, self._source_id, self._key = market, source_id, key
        dice = market.dice
        self._mode = _MODES[int(dice.random() * len(_MODES))]
        self._place = dice.random()
        self._step: str | None = None
        self._made: str | None = None
        self.go()

    def go(self) -> None:
        """Ask some worker."""
        wish = Descent(mode=self._mode, step=self._where(), key=self._key, actor="client")
        if self._mode is Mode.FORK and wish.step is None:
            return  # it has no step yet

        async def make(engine: SimEngine) -> str:
            return (await engine.adescend(self._source_id, wish)).id

        self._market.ask(make, self._heard, self._lost)

    def _where(self) -> str | None:
        if self._mode is Mode.FORK and self._step is None:
            steps = steps_of(self._market.auditor.seen[self._source_id].rows)
            self._step = steps[int(self._place * len(steps))] if steps else None
        return self._step

    def _lost(self) -> None:
        self._market.later(AGAIN_US, self.go)

    def _heard(self, id: Any, error: BaseException | None) -> None:
        market = self._market
        if error is None:
            market.count(f"descents_{self._mode}")
            market.auditor.promises.started(id, self._key)
            market.auditor.check(RULE, self._made in (None, id), self._key, "is", self._made, id)
            self._made = id
            market.note("made", self._mode, id, "of", self._source_id)
        elif isinstance(error, StoreUnavailable):
            self._lost()
        elif isinstance(error, NotRecoverable):
            source = market.auditor.seen[self._source_id].record
            market.count("descents_refused")
            hopeless = not source.is_final or source.state is State.SUCCEEDED
            market.auditor.check(RULE, hopeless or self._made is None, source.id, source.state)
        elif not isinstance(error, UnknownStep) and not isinstance(error, OutlastError):
            raise error
