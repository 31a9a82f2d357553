"""What a training records of itself: metrics, log lines, bad steps, slow ranks."""
