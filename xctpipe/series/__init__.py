"""A series of scans: how the stack moved between them, which object is which, and how it grew."""
