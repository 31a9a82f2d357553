"""The stages that recipes are made of: all that runs inside the container."""
