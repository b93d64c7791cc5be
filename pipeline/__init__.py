"""kling-batch: paid video generation in bulk, where no dollar is lost, spent twice or left unexplained."""
