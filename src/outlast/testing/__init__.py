"""For tests of programs that use Outlast, and of stores made for it."""
