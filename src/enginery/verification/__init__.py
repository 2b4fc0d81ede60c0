"""Two sets of outputs → how far they are apart; and what a session can be asked without any reference."""
