"""Starting a server and keeping watch over it."""
