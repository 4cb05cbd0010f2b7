"""Servers of other people's that tests, campaigns and benchmarks start for themselves."""
