"""The soak: a load of clients under injected faults, and the checker of its logs."""
