"""Version 1 of the gRPC interface: the `.proto` files, and what `python scripts/rpc.py` makes of them."""
