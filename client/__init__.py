"""A hospital's side: its data, its local training, and what it answers to the server."""
