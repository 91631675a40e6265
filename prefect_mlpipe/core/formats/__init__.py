"""Values to bytes and back: one format for each kind of value."""
