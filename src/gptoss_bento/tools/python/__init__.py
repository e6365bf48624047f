"""Python that the model writes: a confined child process for each container, whose state lasts as in a notebook."""
