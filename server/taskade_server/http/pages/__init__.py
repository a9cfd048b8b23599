"""Pages beside the API: health, the documents, error pages, and request bins for development."""
