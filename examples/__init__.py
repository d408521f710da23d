"""Real models and pictures, all from the package index, that show what Kiln does."""
