"""From a value to checked bytes in a store, and back to a value of one's own."""
