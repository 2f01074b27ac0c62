"""The operations of the control API as methods, one module a noun."""
