"""One file per architecture: what its tensors are on the hub. The file name is a family's `architecture`."""
