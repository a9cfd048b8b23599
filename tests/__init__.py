"""Tests. `support` has the helpers; the other folders are named after what they test against."""
