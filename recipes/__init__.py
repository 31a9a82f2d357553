"""What runs inside the container: the stages recipes are made of."""
