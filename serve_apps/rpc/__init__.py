"""The gRPC front: the planning, context, coach and workspace services over the same routes as REST."""
