"""What a model may call on the server: Python, a browser, MCP servers."""
