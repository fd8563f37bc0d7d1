"""From labelled recordings to a trained and tested model, and its run folder on disk."""
