"""What lasts of /v1/responses: stored, continued, retrieved, cancelled and deleted; whole objects and events. Conversations."""
