"""A work-management API server: workspaces, projects and tasks, and a log of every change to them."""

__version__ = "0.1.0"
