"""A simulated world: time, processes, stores, faults."""
