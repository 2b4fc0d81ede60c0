"""What an engine is fed with: random inputs of declared ranges, recorded data, pictures."""
