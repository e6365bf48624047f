"""The HTTP edge: which paths lead where, who may pass, and what an error looks like."""
