"""JSON Schema as clients send it: what it refers to, what is wrong with it, what is enforced, what a prompt shows."""
