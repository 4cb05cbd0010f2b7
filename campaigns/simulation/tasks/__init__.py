"""What runs in simulated worlds: tasks made of actions by a seed."""
