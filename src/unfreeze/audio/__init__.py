"""From audio files to patches: decoding, manifests, splits, the log-mel front end."""
