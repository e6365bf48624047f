"""What must lie on disk before a start: weights, vocabulary, compiled kernels; fetched, checked, cleaned up."""
