"""The login node's programs: compose, check, plan, submit. No torch is imported."""
