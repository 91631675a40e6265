"""The reader of code: bytecode, all that it reaches, what no key can hold."""
