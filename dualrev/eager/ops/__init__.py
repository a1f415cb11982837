"""A room of the imperative face."""
