"""Generation: servers, the one client, and what passes between them."""
