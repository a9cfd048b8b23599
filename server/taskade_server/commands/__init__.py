"""The commands of `taskade`, a module for each kind; `taskade_server.__main__` loads the one that is asked for."""
