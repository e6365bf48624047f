"""Which fields a request may have, and what becomes of them: the table, and what holds a body against it."""
