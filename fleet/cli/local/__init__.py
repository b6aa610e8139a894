"""Commands on the local fleet: up, down, status, doctor, pause."""
