"""Programs that run inside the isolation: only the standard library may be imported here."""
