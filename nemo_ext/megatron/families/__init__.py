"""One file per architecture, which builds its layers. The file name is a family's `architecture`."""
