"""Compare training strategies on one data set, and search for schedules."""
