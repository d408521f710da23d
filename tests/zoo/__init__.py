"""Real architectures that Kiln must compile and match."""
