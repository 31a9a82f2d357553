"""From many samples of a problem to one answer: votes, rewards, self-consistency with tools."""
