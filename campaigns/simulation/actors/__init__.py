"""Who uses the engines of a simulated world, and how."""
