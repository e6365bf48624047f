"""The browser of the model: search by the operator's backend; open and find by ourselves."""
