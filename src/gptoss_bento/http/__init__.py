"""The HTTP edge: routing of paths, shutdown, bounds of connections and bodies, and the shape of errors."""
