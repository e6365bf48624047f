"""Runs the clients that people use against a service; docs/clients.md has the results."""
