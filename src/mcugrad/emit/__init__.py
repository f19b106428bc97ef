"""Printers of C: all decisions are made before they are called."""
