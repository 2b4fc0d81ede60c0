"""Session + inputs → how long a call takes, and how sure that is."""
