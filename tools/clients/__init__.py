"""Runs the clients that people use against a service, each in an environment of its own; docs/clients.md has the results."""
