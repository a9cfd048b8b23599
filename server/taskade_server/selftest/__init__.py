"""`taskade selftest`: tries on the machine it runs on that what was acknowledged survives crashes and bad disks."""
