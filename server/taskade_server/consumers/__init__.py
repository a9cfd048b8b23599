"""What happens after the commit, beside the requests: work in the background, under leases."""
