"""How fast Outlast is, and what the disk allows: ``python -m benchmarks all``.

Every workload runs with durable settings on a real disk, measures that disk's own limit in the same
run, and counts rows and results in the file afterwards. One that could not check what it measured
prints an error and nothing else.
"""
