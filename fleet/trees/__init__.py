"""Trees of files by content: the blob store, the tree, what differs between two trees."""
