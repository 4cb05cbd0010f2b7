"""The bodies of steps: on the loop, in threads, in processes, on other machines."""
