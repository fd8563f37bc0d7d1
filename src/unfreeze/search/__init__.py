"""Search by sound in very many recordings: a vector for each window, kept in an index."""
