"""Running stages on one machine: its processes, containers, and what a person sees."""
