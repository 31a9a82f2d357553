"""The records of a run: manifests, lineage, fingerprints, heartbeats, image versions."""
