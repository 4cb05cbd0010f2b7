"""What people and programs do from outside: handles, bulk, schedules, limits, webhooks."""
