"""What must be on disk before a start: weights, vocabulary, compiled kernels; fetched, checked, cleaned up."""
