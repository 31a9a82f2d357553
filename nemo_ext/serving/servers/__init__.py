"""One file per server kind; the file name is the kind."""
