"""What was tried for speed and mostly did not help: the tables of docs/performance.md."""
