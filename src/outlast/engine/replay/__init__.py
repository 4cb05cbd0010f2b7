"""The code of a task, run by its log: the same log, the same course, whoever runs it."""
