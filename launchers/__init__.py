"""What runs on the login node: compose, check, plan, submit. Imports no torch."""
