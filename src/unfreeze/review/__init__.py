"""Review by people: clips to listen to, corrections, and what the corrections change."""
