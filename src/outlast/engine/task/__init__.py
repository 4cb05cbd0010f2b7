"""What tasks and steps are, and what their code is told while it runs."""
