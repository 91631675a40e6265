"""Values as canonical pieces of bytes, the groundwork of every digest."""
