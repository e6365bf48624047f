"""One API worker: its life cycle, its ASGI application, the merged OpenAPI document."""
