"""What task code calls besides its steps: sleep, ask, publish, spend, stream, undo."""
