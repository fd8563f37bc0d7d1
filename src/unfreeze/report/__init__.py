"""What a run looks like: plots (`plots`) and tables for the terminal (`tables`)."""
