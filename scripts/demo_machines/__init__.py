"""scripts/demo in virtual machines of Debian's releases."""
