"""The client side of MCP servers: which there are, what of them a model sees, and calls that always end."""
