"""Sessions on the kernels of distributions, in virtual machines; scripts/kernels is the command."""
