"""An independent witness of what a program does: strace, on the very same run as our own trace."""
