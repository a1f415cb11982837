"""Training steps on many devices: programs, and what their compiled forms send."""
