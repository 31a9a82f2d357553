"""Records of a training: metrics, log lines, bad steps, slow ranks."""
