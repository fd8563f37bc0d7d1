"""Pictures of runs and comparisons, and tables for the terminal."""
