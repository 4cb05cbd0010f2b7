"""A deterministic simulation: many workers, one store, one thread, one integer that replays it all.

The engine, its drivers, scopes and worker, the lifecycle and the stores are those of production.
What is left to luck in production is left to dice here, and the dice are thrown with one seed:

``world``     one seed: its plan, time and processes (``clockwork``, ``loop``, ``threads``), the
              store as a process reaches it (``disk``), a ``standby`` that is behind, engines
              (``node``, ``fleet``), ``faults``, ``ending``
``tasks``     what runs: steps, actions made of steps, programs made of actions
``actors``    who starts, signals, answers, pauses, cancels, plans, descends, and asks twice
``rules``     what must be true after each write, by topic; ``names`` has them all
``plants``    known bugs, put in on purpose: each must be caught
``campaign``  many seeds, what they counted, and the command

*What the dice may permute.* asyncio promises that ``call_soon`` keeps an order, and the engine may
rely on it. So callbacks of one object stay in order, and those of different objects (a task, a
driver, the journal) may overtake each other within one turn of the loop. Whatever comes from
another thread (a commit, a read, a body's outcome) and every timer comes when the dice say. A
process is paused, or dies, between any two callbacks, and before or after any call of the store.

*The worlds.* In most there are up to three workers on a store in memory, and a failure detector
that may be wrong: it has executions taken over from a process that is only frozen, or not even
that. There the fence alone protects. In the others, those on SQLite among them, one process owns
the store as in production; whatever it finds there of others is dead.
"""
