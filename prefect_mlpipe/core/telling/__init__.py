"""What is told to people: how values and code look, and what a step reads without a word."""
