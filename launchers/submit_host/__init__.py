"""Launching from a machine that is not the cluster's: over ssh, the committed tree and the same command there."""
