"""Several solutions to one problem: votes, rewards, the answer they agree on."""
