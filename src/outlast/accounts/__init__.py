"""Users, tokens and sessions: how they are made, and who somebody is that shows one."""
