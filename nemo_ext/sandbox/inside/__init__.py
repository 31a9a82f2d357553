"""What runs inside the isolation: only the standard library may be imported here."""
