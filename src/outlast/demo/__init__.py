"""What ``outlast demo`` runs: the next clock change of every time zone in the world."""

from outlast.demo.tasks import clock_changes

__all__ = ["clock_changes"]
