"""An evaluation's rows and scores in the layouts of other tools, so that their tables and viewers read them."""
