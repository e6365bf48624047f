"""What a worker needs to run stored work of any kind: tasks, retries, its lease, notifications between workers."""
