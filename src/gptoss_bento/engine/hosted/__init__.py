"""The tools that run on the server, within vLLM's loop: what the model reads, and the items and events of its calls."""
