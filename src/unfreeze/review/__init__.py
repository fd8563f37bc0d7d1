"""Work with people: clips to listen to, their corrections, and what these change."""
