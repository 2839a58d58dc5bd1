"""Corrections of transmission slabs: plain array functions, one family a file, found by their decorator."""
