"""What a run leaves behind: manifests, lineage, fingerprints, heartbeats, image versions."""
