"""`taskade selftest`: proves on the machine it runs on that what was acknowledged survives crashes and failing disks."""
