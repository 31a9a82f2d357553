"""Stages that judge solutions: graders, votes, rewards."""
