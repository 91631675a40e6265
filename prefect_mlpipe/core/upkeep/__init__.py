"""What a store holds, whether it is sound, and what of it can go."""
