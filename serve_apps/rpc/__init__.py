"""The gRPC front: the planning, context, coach, workspace and sessions services over the same routes as REST."""
